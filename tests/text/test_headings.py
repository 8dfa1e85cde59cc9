"""Headings and lines of Markdown, reStructuredText, text and notebooks, where they stand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dewey_embed.text.headings import markdown_headings, restructured_headings
from dewey_embed.text.mail import read_mail
from dewey_embed.text.reader import read_documents
from tests.text.places import one, where

MARKDOWN = """---
title: Lease
tags: [a]
---

# Rent

Due monthly.

```sh
# a comment
```

Late payment
------------

Five percent.

<!--
# hidden
-->

### Interest of `3 * 4` **percent** [here](http://x) {#interest}

Compound.

Repairs
=======

The roof.
"""


def test_passages_of_markdown_know_their_headings_and_lines(tmp_path):
    (tmp_path / "a.md").write_text(MARKDOWN)
    found = one(tmp_path / "a.md")
    interest = "Interest of 3 * 4 percent here"
    for words, line, headings in [
        ("tags: [a]", 3, ()),
        ("# Rent", 6, ("Rent",)),
        ("Due monthly.", 8, ("Rent",)),
        ("# a comment", 11, ("Rent",)),
        ("Late payment", 14, ("Rent", "Late payment")),
        ("Five percent.", 17, ("Rent", "Late payment")),
        ("# hidden", 20, ("Rent", "Late payment")),
        ("Compound.", 25, ("Rent", "Late payment", interest)),
        ("Repairs", 27, ("Repairs",)),
        ("The roof.", 30, ("Repairs",)),
    ]:
        place = where(found, words)
        assert (place.line, place.last_line, place.headings) == (line, line, headings)
    place = where(found, "Compound.\n\nRepairs\n=======\n\nThe roof.")
    assert (place.line, place.last_line) == (25, 30)


MARKDOWN_LINES = [
    *("# One", "## Two ##", "###Three", "#", "text here", "more text", "", "", "", "---", "==="),
    *("- item", "1. first", "```", "~~~~", "```py", "    # code", "\t# code", "<!-- a", "-->"),
    *("***", "* * *", "=", "--", "- ```", "# C#", "<div>", "<p>", "> a", "> # a", "  a", " "),
    *("| a | b |", "|---|---|", "a|b", "-|-", "[a]: /x", "[a]:", "'title'", "\t- a", "   ==="),
]


@given(
    st.lists(st.sampled_from(MARKDOWN_LINES), max_size=12),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([1, 9, 30, 1000]),
)
def test_headings_of_markdown_are_those_of_commonmark_however_long_its_sections(lines, end, size):
    text = end.join(lines)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    theirs = [
        (token.map[0], int(token.tag[1]))
        for token in tokens
        if token.type == "heading_open" and token.level == 0
    ]
    ours = [(text.count(end, 0, each.char), each.number) for each in markdown_headings(text, size)]
    assert ours == theirs


def test_a_line_that_goes_on_in_an_item_is_no_heading_whatever_is_under_it():
    assert markdown_headings("- item\n===\n###Three\n=") == []


def test_headings_that_markdown_has_in_html_are_headings_too(tmp_path):
    (tmp_path / "a.md").write_text(
        '<div>\n<h1 align="center">Tides <br/>\n&amp; moon</h1>\n</div>\n\nThey rise.\n\n'
        "<!-- <h2>Hidden</h2> -->\n<pre>\n<h2>Typed</h2>\n</pre>\n\nThey fall.\n\n"
        "<h2>Never closed\n\nIt pulls.\n\n# Sun\n\nIt shines."
    )
    found = one(tmp_path / "a.md")
    for words, line, headings in [
        ("They rise.", 6, ("Tides & moon",)),
        ("They fall.", 13, ("Tides & moon",)),
        ("It pulls.", 17, ("Tides & moon",)),
        ("It shines.", 21, ("Sun",)),
    ]:
        place = where(found, words)
        assert (place.line, place.headings) == (line, headings)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("# About C#", "About C#"),
        ("# About C \\# #", "About C #"),
        ("## **Bold** and *thin* `*code*` ##", "Bold and thin *code*"),
        ("# [A link](http://x) ![picture](b.png)", "A link picture"),
        ("# [**Strong** link][ref]\n\n[ref]: /x", "Strong link"),
        ("# An _old_ [draft] {.unnumbered}", "An old [draft]"),
        ("A line\\\nand more\n===", "A line and more"),
        ('# <a id="x"></a>Rent &amp; costs', "Rent & costs"),
        ("# snake_case and 2 * 3", "snake_case and 2 * 3"),
        ("#", ""),
        ("# " + "long " * 300, ""),
    ],
)
def test_the_words_of_a_heading_are_those_that_are_seen(line, words):
    (found,) = markdown_headings(line)
    assert found.label == words


RESTRUCTURED = """=====
Title
=====

intro

Rent
====

Due monthly.

Late
----

Five percent.

A line
that is two
-----------

| a line block
------

.. comment
-----

Roof
====

leaks
"""


def test_passages_of_restructured_text_know_their_headings_and_lines(tmp_path):
    (tmp_path / "a.rst").write_text(RESTRUCTURED)
    found = one(tmp_path / "a.rst")
    assert found.title == "Title"
    for words, line, headings in [
        ("intro", 5, ("Title",)),
        ("Due monthly.", 10, ("Title", "Rent")),
        ("Five percent.", 15, ("Title", "Rent", "Late")),
        ("that is two", 18, ("Title", "Rent", "Late")),
        ("leaks", 30, ("Title", "Roof")),
    ]:
        place = where(found, words)
        assert (place.line, place.headings) == (line, headings)


@pytest.mark.parametrize(
    "text",
    [
        *("a\n\n----\n\nb", "....\n", "a::\n\n  b\n  ====\n", "A bcd\n===\n"),
        *("- an item\n---------\n", "| a line\n------\n", ">>> 1 + 1\n=========\n"),
        *(
            "===  ===\na    b\n===  ===\n",
            "+--+\n====\n",
            ":a field: x\n---------\n",
            "中文\n---\n",
        ),
        *("__ link\n=======\n", "* item\n======\n"),
    ],
)
def test_lines_between_blocks_are_no_headings(text):
    assert [*restructured_headings(text)] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *(("C\n=\n", "C"), ("Go\n--\n", "Go"), ("1. Rent\n=======\n", "1. Rent")),
        *(("中文\n----\n", "中文"), ("-v and -q\n=========\n", "-v and -q"), (":-)\n---\n", ":-)")),
        *(("A title that is long\n=====\n", "A title that is long"), ("___\nAb\n___\n", "Ab")),
    ],
)
def test_lines_that_are_underlined_are_headings(text, words):
    assert [each.label for each in restructured_headings(text)] == [words]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("``rise()`` and ``fall()``", "rise() and fall()"),
        (":func:`rise` of `the sea <http://x>`__", "rise of the sea"),
        (":ref:`the moon <moon>` and `sun`_", "the moon and sun"),
        (r"**Strong** and *thin* 2 \* 3", "Strong and thin 2 * 3"),
        ("2 * 3 and a_b and `", "2 * 3 and a_b and `"),
    ],
)
def test_marks_are_not_among_the_words_of_a_heading_of_restructured_text(line, words):
    (found,) = restructured_headings(f"{line}\n{'=' * len(line)}\n")
    assert found.label == words


@pytest.mark.parametrize(("end", "line"), [("\n", 3), ("\r\n", 3), ("\r", None), ("\n\r", None)])
def test_lines_have_numbers_where_all_editors_count_the_same(tmp_path, end, line):
    (tmp_path / "a.txt").write_bytes(f"# one{end}two{end}three".encode())
    place = where(one(tmp_path / "a.txt"), "three")
    assert (place.line, place.headings) == (line, ())


def test_records_have_no_lines_for_these_change_with_every_record_before_them(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert [each.landmarks for each in read_documents([tmp_path])] == [(), ()]


def test_a_heading_of_a_notebook_reaches_over_the_cells_after_it(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": "Tides\n=====\n\n```\n# a comment\n```\nThey rise."},
        {"cell_type": "code", "source": "# no heading\nrise(3)", "outputs": []},
        {"cell_type": "markdown", "source": "## Moon ##\nIt pulls."},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    found = one(tmp_path / "a.ipynb")
    assert found.title == "Tides"
    for words, cell, headings in [
        ("They rise.", 1, ("Tides",)),
        ("rise(3)", 2, ("Tides",)),
        ("It pulls.", 3, ("Tides", "Moon")),
    ]:
        place = where(found, words)
        assert (place.cell, place.headings, place.line) == (cell, headings, None)


def test_text_of_no_known_place_says_none():
    assert [*read_mail(b"Subject: Rent\n\nIt is due.").landmarks] == []
