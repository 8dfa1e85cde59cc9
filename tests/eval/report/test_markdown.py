"""Markdown: tables that stay tables, text that means itself, links to pictures."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_embed.eval.report.markdown import code, escape, page_to_markdown, to_markdown
from dewey_embed.eval.report.pages import collect
from dewey_embed.eval.result_page import Column, Table
from tests.eval.report.samples import alignment, by_length, evaluation, findings

COLUMNS = (Column(name="task"), Column(name="score", unit="nDCG@10", best="highest", digits=3))


def test_a_table_is_aligned_with_the_best_bold_and_a_dash_for_what_is_missing() -> None:
    rows = (("qasper", 0.5), ("a|b", None), ("2wikimqa", 0.75), ("snow_white", 3))
    table = Table(title="Scores", columns=COLUMNS, rows=rows, notes=("A note.",))
    text = page_to_markdown(findings(kind="eval", name="n", title="T", tables=(table,)))
    assert text.splitlines()[2:13] == [
        "**Scores**", "",
        "| task | score (nDCG@10) |",
        "| --- | ---: |",
        "| qasper | 0.500 |",
        r"| a\|b | – |",
        "| 2wikimqa | 0.750 |",
        "| snow_white | **3** |",
        "",
        "- A note.", "",
    ]  # fmt: skip


def test_every_page_tells_its_command_machine_and_versions() -> None:
    last = page_to_markdown(evaluation()).splitlines()[-1]
    assert f"`{evaluation().command}`, 2026-11-23." in last
    assert "AMD EPYC 9R14 (AVX512), 2 cores" in last
    assert "torch 2.13.0+cpu" in last


def test_plots_link_to_their_files_and_are_left_out_without(tmp_path) -> None:
    alignment().write(tmp_path / "a.json")
    groups = collect([tmp_path]).groups
    assert "![" not in to_markdown(groups, {})
    links = {("alignment-mini", 1): ("results/x.png", "results/x.svg")}
    text = to_markdown(groups, links)
    assert "[![Cosine by position in the document](results/x.png)](results/x.svg)" in text
    assert text.count("![") == 1


def test_a_note_under_several_tables_is_said_once() -> None:
    assert page_to_markdown(by_length()).count("Chunks of 256 tokens") == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("*bold* _it_ a_b", r"\*bold\* \_it\_ a_b"),
        ("[x](y) `c` $m$", r"\[x\](y) \`c\` \$m\$"),
        ("two\nlines", "two lines"),
        ("1. first", r"1\. first"),
        ("0.5 is half", "0.5 is half"),
        ("-0.5", "-0.5"),
        ("- item", r"\- item"),
        ("---", r"\---"),
    ],
)
def test_text_means_itself(text, escaped) -> None:
    assert escape(text) == escaped


def test_code_may_hold_backticks() -> None:
    assert code("a ` b") == "``a ` b``"
    assert code("`a`") == "`` `a` ``"


@given(st.lists(st.tuples(st.text(), st.text() | st.none() | st.floats()), max_size=4))
def test_any_text_leaves_a_table_its_rows_and_columns(rows) -> None:
    table = Table(title="t", columns=COLUMNS, rows=tuple(rows))
    text = page_to_markdown(findings(kind="eval", name="n", title="T", tables=(table,)))
    lines = [line for line in text.split("\n") if line.startswith("| ")]
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(COLUMNS) + 1
        assert not re.search(r"<[a-zA-Z/!]", line)
