"""What `dewey ablate` and `dewey train` wrote, as pages."""

import json

import pytest

from dewey_embed.errors import ResultsError
from dewey_embed.eval.report.pages import read_findings

MACHINE = {
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
    values = {"grid": GRID, "command": "dewey ablate x.toml", "machine": MACHINE, "runs": runs}
    path.write_text(json.dumps(values))
    return path


def test_an_ablation_is_a_page_named_after_its_folder(results) -> None:
    page = read_findings(results)
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
    [plot] = read_findings(results).plots
    assert plot.series[0].x == ("256–1,024", "1,024–4,096", "from 4,096")
    assert plot.series[0].y == (None, 0.74, 0.70)


def test_an_ablation_that_is_none_is_an_error(results) -> None:
    values = json.loads(results.read_text())
    for wrong, message in (
        ({**values, "machine": {}}, "'processor' is missing"),
        ({**values, "runs": [{"name": "512"}]}, "recipe"),
        ({**values, "grid": {**GRID, "axes": 1}}, "axes"),
        ({**values, "runs": []}, "no finished run"),
        ({**values, "runs": None}, "is no result"),
    ):
        results.write_text(json.dumps(wrong))
        with pytest.raises(ResultsError, match=message):
            read_findings(results)


def test_the_shipped_training_is_a_page(repository) -> None:
    path = repository / "benchmarks" / "results" / "mini_training.json"
    page, values = read_findings(path), json.loads(path.read_text())
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
    assert f"went on from {len(values['before'])} runs" in page.summary
    assert f"{hours:.2f} hours" in page.summary


@pytest.mark.parametrize("damage", [{"figures": {"a": "b"}}, {"machine": None}, {"steps": None}])
def test_a_training_that_is_none_is_an_error(repository, tmp_path, damage) -> None:
    values = json.loads((repository / "benchmarks/results/mini_training.json").read_text())
    path = tmp_path / "t.json"
    path.write_text(json.dumps(values | damage))
    with pytest.raises(ResultsError, match="is no result of `dewey train`"):
        read_findings(path)
