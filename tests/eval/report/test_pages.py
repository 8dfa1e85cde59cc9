"""Files and folders → pages: which are found, in which order, and what is refused."""

import json

import pytest

from dewey_embed.errors import ResultsError
from dewey_embed.eval.report.pages import collect, machine_text
from tests.eval.report.samples import MACHINE, alignment, cost, evaluation, findings, write_all


def names(collected) -> list[str]:
    return [page.findings.name for group in collected.groups for page in group.pages]


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
    assert "list.json: is no findings file" in collected.passed_over[1]
    with pytest.raises(ResultsError, match=r"broken\.json: cannot be read as JSON"):
        collect([tmp_path, broken])


def test_an_unknown_key_is_named(tmp_path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({**json.loads(evaluation().model_dump_json()), "colour": "red"}))
    with pytest.raises(ResultsError, match=r"e\.json: is no findings file: colour"):
        collect([path])


def test_nothing_found_is_an_error_that_counts_what_was_there(tmp_path) -> None:
    with pytest.raises(ResultsError, match="no findings there"):
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


def test_notes_under_several_tables_are_said_once() -> None:
    from dewey_embed.eval.report.pages import Page
    from tests.eval.report.samples import by_length

    assert len(Page("a", by_length()).shared_notes()) == 2
    assert Page("a", alignment()).shared_notes() == []


def test_a_machine_is_a_line_without_what_was_not_recorded() -> None:
    assert machine_text(MACHINE) == "AMD EPYC 9R14 (AVX512), 2 cores, 2 threads, cpu, bfloat16"
    older = MACHINE.model_copy(update={"threads": None, "cores": 1, "dtype": ""})
    assert machine_text(older) == "AMD EPYC 9R14 (AVX512), 1 core, cpu"
