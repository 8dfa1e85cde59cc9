"""Jupyter notebooks by nbformat: cells, headings and the text of outputs."""

import json

import nbformat
import pytest
from nbformat import v4

from dewey_embed.text.inputs import ReadOptions
from dewey_embed.text.notebooks import read_notebook
from dewey_embed.types import Location
from tests.text.places import one, where


def make_notebook(path) -> None:
    run = v4.new_code_cell("rise(3)")
    run.outputs = [
        v4.new_output("stream", text="step 1\rstep 2\n\x1b[31mhigh water\x1b[0m\n"),
        v4.new_output("execute_result", data={"text/plain": "6.7"}, execution_count=1),
        v4.new_output("display_data", data={"image/png": "iVBOR", "text/plain": "<Figure>"}),
        v4.new_output("error", ename="ValueError", evalue="too low", traceback=[]),
    ]
    cells = [
        v4.new_markdown_cell("# On tides\nThey rise.\n\n```\n# no heading\n```"),
        v4.new_code_cell(""),
        run,
        v4.new_markdown_cell("## The moon ##\nIt pulls."),
        v4.new_code_cell("x = <bare>"),
    ]
    nbformat.write(v4.new_notebook(cells=cells), str(path))


def test_a_notebook_is_its_cells_and_the_text_of_their_outputs(tmp_path):
    make_notebook(tmp_path / "a.ipynb")
    found = one(tmp_path / "a.ipynb")
    assert found.title == "On tides"
    assert found.text == (
        "# On tides\nThey rise.\n\n```\n# no heading\n```\n\n"
        "rise(3)\nstep 2\nhigh water\n6.7\nValueError: too low\n\n"
        "## The moon ##\nIt pulls.\n\nx = <bare>"
    )
    assert found.unread == {"cell outputs": 1}
    assert where(found, "They rise") == Location(cell=1, headings=("On tides",))
    assert where(found, "high water") == Location(cell=3, headings=("On tides",))
    assert where(found, "pulls") == Location(cell=4, headings=("On tides", "The moon"))
    assert where(found, "<bare>") == Location(cell=5, headings=("On tides", "The moon"))


def test_notebooks_without_outputs_and_of_older_formats_are_read(tmp_path):
    cells = [{"cell_type": "code", "source": ["a()\n", "b()"]}, {"cell_type": "code", "input": "c"}]
    for number, notebook in enumerate([{"cells": cells}, {"worksheets": [{"cells": cells}]}]):
        (tmp_path / f"{number}.ipynb").write_text(json.dumps(notebook))
        assert one(tmp_path / f"{number}.ipynb").text == "a()\nb()\n\nc"


@pytest.mark.parametrize(
    "broken",
    [b"[]", b"{}", b'{"cells": [1]}', b"{", b'{"cells": {"a": 1}}', b'{"cells": [{"outputs": 3}]}'],
)
def test_what_is_no_notebook_is_named(broken):
    with pytest.raises(ValueError, match="not a Jupyter notebook"):
        read_notebook(broken, ReadOptions())


def test_heading_cells_of_format_3_are_headings_of_their_level(tmp_path):
    cells = [
        {"cell_type": "heading", "level": 1, "source": ["Tides"]},
        {"cell_type": "code", "input": "rise(3)", "outputs": []},
        {"cell_type": "heading", "level": 2, "source": "The moon"},
        {"cell_type": "markdown", "source": "It pulls."},
    ]
    notebook = {"nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells}]}
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    found = one(tmp_path / "a.ipynb")
    assert found.title == "Tides"
    assert where(found, "rise(3)").headings == ("Tides",)
    assert where(found, "It pulls.").headings == ("Tides", "The moon")
