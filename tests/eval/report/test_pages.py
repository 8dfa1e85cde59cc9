"""Files and folders → pages: which are found, in which order, and what is refused."""

import json

import pytest

from dewey_embed.errors import ResultsError
from dewey_embed.eval.report.pages import collect, machine_text, read_page
from tests.eval.report.samples import MACHINE, alignment, cost, evaluation, findings, write_all


def names(collected) -> list[str]:
    return [page.result.name for group in collected.groups for page in group.pages]


def test_a_folder_is_searched_and_kinds_come_in_the_order_of_a_report(tmp_path) -> None:
    write_all(tmp_path / "deep" / "er")
    findings(kind="zoo", name="later").write(tmp_path / "a.json")
    collected = collect([tmp_path])
    assert names(collected) == ["offline", "length-mini", "alignment-mini", "cost-mini", "later"]
    assert [group.title for group in collected.groups][-2:] == ["Cost", "Zoo"]
    assert collected.passed_over == ()


def test_pages_of_a_kind_come_in_the_order_given(tmp_path) -> None:
    for name in ("a", "b", "c"):
        findings(kind="eval", name=name).write(tmp_path / f"{name}.json")
    assert names(collect([tmp_path / "c.json", tmp_path])) == ["c", "a", "b"]


def test_a_file_given_twice_is_one_page(tmp_path) -> None:
    evaluation().write(tmp_path / "e.json")
    assert names(collect([tmp_path, tmp_path / "e.json", tmp_path / "." / "e.json"])) == ["offline"]


def test_other_json_is_passed_over_in_a_folder_and_refused_by_name(tmp_path) -> None:
    evaluation().write(tmp_path / "e.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"kind": "eval", "name"')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / ".draft.json").write_text("{}")
    collected = collect([tmp_path])
    assert names(collected) == ["offline"]
    assert len(collected.passed_over) == 2
    assert "broken.json: cannot be read as JSON" in collected.passed_over[0]
    assert "list.json: is not a page of results" in collected.passed_over[1]
    with pytest.raises(ResultsError, match=r"broken\.json: cannot be read as JSON"):
        collect([tmp_path, broken])


def test_an_unknown_key_is_named(tmp_path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({**json.loads(evaluation().model_dump_json()), "colour": "red"}))
    with pytest.raises(ResultsError, match=r"e\.json: is not a page of results: colour"):
        collect([path])


def test_nothing_found_is_an_error_that_counts_what_was_there(tmp_path) -> None:
    with pytest.raises(ResultsError, match="no results there"):
        collect([tmp_path])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"1 JSON files hold something else"):
        collect([tmp_path])
    with pytest.raises(ResultsError, match="no such file or folder"):
        collect([tmp_path / "none"])


def test_two_files_of_one_name_are_refused(tmp_path) -> None:
    cost().write(tmp_path / "one.json")
    cost().write(tmp_path / "two.json")
    with pytest.raises(ResultsError, match=r"one\.json and .*two\.json: both are called"):
        collect([tmp_path])


def test_anchors_differ_where_names_differ_in_signs_only(tmp_path) -> None:
    for number, name in enumerate(("a b", "a-b", "A/B", "☃")):
        findings(kind="eval", name=name).write(tmp_path / f"{number}.json")
    [group] = collect([tmp_path]).groups
    anchors = [page.anchor for page in group.pages]
    assert anchors == ["eval-a-b", "eval-a-b-2", "eval-a-b-3", "eval"]


def test_notes_of_several_tables_stand_once() -> None:
    from dewey_embed.eval.report.pages import Page
    from tests.eval.report.samples import by_length

    assert len(Page("a", by_length()).shared_notes()) == 2
    assert Page("a", alignment()).shared_notes() == []


def test_a_machine_is_a_line_without_what_was_not_recorded() -> None:
    assert machine_text(MACHINE) == "AMD EPYC 9R14 (AVX512), 2 cores, 2 threads, cpu, bfloat16"
    older = MACHINE.model_copy(update={"threads": None, "cores": 1, "dtype": ""})
    assert machine_text(older) == "AMD EPYC 9R14 (AVX512), 1 core, cpu"


RUN_MACHINE = {
    "processor": "x86_64", "cores": 2, "devices": [], "torch": "2.13.0", "capability": "AVX512",
}  # fmt: skip
GRID = {
    "title": "Training length", "question": "Does it help?", "recipe": "mini.toml",
    "axis": "training length", "runs": [{"name": "512"}, {"name": "2048"}],
}  # fmt: skip


def run(name, chunks, **figures) -> dict:
    return {
        "name": name, "recipe": "0" * 16, "evaluation": "1" * 16, "steps": 200, "tokens": 1_638_400,
        "seconds": 720.0, "figures": {"chunk_cosine": chunks, "cls_cosine": 0.7, **figures},
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "ablate-length" / "results.json"
    path.parent.mkdir()
    runs = [
        run("512", 0.75, **{"chunk_cosine_in/1024-4096": 0.74, "chunk_cosine_in/4096-": 0.70}),
        run("2048", 0.77, **{"chunk_cosine_in/256-1024": 0.76, "extra_tightness": 0.1}),
    ]
    values = {"grid": GRID, "command": "dewey ablate x.toml", "machine": RUN_MACHINE, "runs": runs}
    path.write_text(json.dumps(values))
    return path


def test_an_ablation_is_a_page_named_after_its_folder(results) -> None:
    page = read_page(results)
    assert (page.kind, page.name, page.title) == ("ablation", "ablate-length", "Training length")
    assert (page.command, page.date, page.versions) == (
        "dewey ablate x.toml",
        "",
        {"torch": "2.13.0"},
    )
    [table] = page.tables
    assert [column.name for column in table.columns] == [
        "training length", "steps", "tokens", "time", "chunks", "CLS", "extra tightness",
    ]  # fmt: skip
    assert table.rows[0] == ("512", 200, 1_638_400, 12.0, 0.75, 0.7, None)
    assert table.columns[-1].best == "lowest"


def test_an_ablations_lines_run_over_all_lengths_shortest_first(results) -> None:
    [plot] = read_page(results).plots
    assert plot.series[0].x == ("256–1,024", "1,024–4,096", "from 4,096")
    assert plot.series[0].y == (None, 0.74, 0.70)


def test_a_damaged_ablation_is_an_error(results) -> None:
    values = json.loads(results.read_text())
    for wrong, message in (
        ({**values, "machine": {}}, "'processor' is missing"),
        ({**values, "runs": [{"name": "512"}]}, "recipe"),
        ({**values, "grid": {**GRID, "axes": 1}}, "axes"),
        ({**values, "runs": []}, "no finished run"),
        ({**values, "runs": None}, "is not a result"),
    ):
        results.write_text(json.dumps(wrong))
        with pytest.raises(ResultsError, match=message):
            read_page(results)


def test_the_shipped_training_is_a_page(repository) -> None:
    path = repository / "benchmarks" / "results" / "mini_training.json"
    page, values = read_page(path), json.loads(path.read_text())
    assert (page.kind, page.name, page.command) == ("training", "mini_training", values["command"])
    shown = dict(page.tables[0].rows)
    assert values["figures"]["chunk_cosine"] in shown.values()
    assert f"{values['steps']:,} steps" in page.summary
    chunks, cls = page.plots[0].series
    assert chunks.y[0] == values["figures"]["chunk_cosine_in/0-256"]
    measured = [name for name in values["figures"] if name.startswith("cls_cosine/")]
    assert list(cls.y) == [values["figures"][name] for name in measured]
    assert cls.x[0] == "0–256"
    hours = sum(run["train_hours"] for run in values["before"])
    assert f"It continued {len(values['before'])} earlier runs" in page.summary
    assert f"{hours:.2f} hours" in page.summary


@pytest.mark.parametrize("damage", [{"figures": {"a": "b"}}, {"machine": None}, {"steps": None}])
def test_a_damaged_training_is_an_error(repository, tmp_path, damage) -> None:
    values = json.loads((repository / "benchmarks/results/mini_training.json").read_text())
    path = tmp_path / "t.json"
    path.write_text(json.dumps(values | damage))
    with pytest.raises(ResultsError, match="is not a result of `dewey train`"):
        read_page(path)
