"""A model's card + pages of results → the card with their tables, and with figures for the hub.

The tables stand between two marks, so that new ones replace the old. The hub reads the figures from
`model-index` in the card's front matter, as mteb writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dewey_embed.errors import ResultsError
from dewey_embed.eval.report.markup import page_to_markdown
from dewey_embed.eval.result_page import ResultPage, Table
from dewey_embed.eval.summary import MEASURE_NAMES
from dewey_embed.eval.tasks import SPLIT

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

START, END = "<!-- results -->", "<!-- /results -->"
"""Marks around the tables."""

BLOCK = re.compile(rf"\n*{START}\n(?:(?!{START}).)*?{END}\n*", re.DOTALL)

SOURCE, SOURCE_URL = "dewey eval", "https://pypi.org/project/dewey-embed/"
"""What tells figures of this command from others in a card's metadata."""

SCORES = ("task", "measure")
"""The first columns of the table of an evaluation that has a model's scores."""

DIGITS = 5


def read_card(path: Path) -> str:
    """The text of a card.

    Raises:
        ResultsError: there is none, or it cannot be read.

    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        missing = "there is no card" if path.parent.is_dir() else "there is no such folder"
        raise ResultsError(
            f"{path}: {missing}; give the folder of a model that was trained, merged or "
            "fetched, or of the run that made it, or write one that begins with ---, "
            "license: apache-2.0 (or another) and ---"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: the card cannot be read ({error}); save it as UTF-8") from None


def with_results(card: str, label: str, pages: Sequence[ResultPage]) -> str:
    """The card with the scores of pages of `dewey eval`, in place of those that it had of them.

    `label` is the model's name in their columns: `mini` of `mini in-context`.

    Raises:
        ResultsError: the card's front matter cannot be read, or a page has no scores of the model.

    """
    from huggingface_hub import ModelCard

    try:
        parsed = ModelCard(without_results(card))
    except Exception as error:  # of YAML, and of the hub's own checks of it
        raise ResultsError(f"the card's front matter cannot be read ({error}); mend it") from None
    tables = [_scores(page, label) for page in pages]
    data = cast("ModelCardData", parsed.data)
    data.model_name = data.model_name or label
    figures = [figure for table in tables for figure in _figures(table, label)]
    data.eval_results = [*_of_others(data.eval_results or [], figures), *figures]
    shown = [
        page_to_markdown(page.model_copy(update={"tables": (table,), "plots": (), "summary": ""}))
        for page, table in zip(pages, tables, strict=True)
    ]
    blocks = [parsed.text.rstrip("\n"), "", START, "## Results", "", "\n\n".join(shown), END, ""]
    parsed.text = "\n".join(blocks)
    return str(parsed)


def without_results(card: str) -> str:
    """The card without the tables of results."""
    return BLOCK.sub("\n", card)


def _scores(page: ResultPage, label: str) -> Table:
    """The columns of the model's scores in a page, with the rows that have one.

    Raises:
        ResultsError: there is none.

    """
    tables = [
        table
        for table in page.tables
        if tuple(column.name for column in table.columns[: len(SCORES)]) == SCORES
    ]
    for table in tables:
        own = [place for place, column in enumerate(table.columns) if _is_of(column.name, label)]
        if own:
            return _only(table, own)
    there = dict.fromkeys(column.name for table in tables for column in table.columns[2:])
    raise ResultsError(
        f"{page.title}: has no scores of {label!r}, but of {', '.join(there) or 'no model'}; give "
        "a page of dewey eval, and with --label the model's name in it"
    )


def _only(table: Table, own: Sequence[int]) -> Table:
    """A table of scores with some of its columns of scores, and without the rows that lack them."""
    kept = [*range(len(SCORES)), *own]
    return table.model_copy(
        update={
            "columns": tuple(table.columns[place] for place in kept),
            "rows": tuple(
                tuple(row[place] for place in kept)
                for row in table.rows
                if any(row[place] is not None for place in own)
            ),
        }
    )


def _is_of(column: str, label: str) -> bool:
    """Whether a column has scores of the model, in one of its modes or contexts."""
    return column == label or column.startswith(f"{label} ")


def _figures(table: Table, label: str) -> Iterator[EvalResult]:
    """The model's scores, but for their means, as the hub wants them."""
    from huggingface_hub import EvalResult

    types = {name: kind for kind, name in MEASURE_NAMES.items()}
    for row in table.rows:
        task, measure = str(row[0]), str(row[1])
        for column, value in zip(table.columns, row, strict=True):
            if not _is_of(column.name, label) or not isinstance(value, float) or not measure:
                continue
            way = column.name.removeprefix(label).strip()
            yield EvalResult(
                task_type="Retrieval" if measure.startswith("nDCG") else "Other",
                dataset_type=task,
                dataset_name=f"{task}, {way}" if way else task,
                dataset_config=way or "default",
                dataset_split=SPLIT,
                metric_type=types.get(measure, measure),
                metric_name=measure,
                metric_value=round(value, DIGITS),
                source_name=SOURCE,
                source_url=SOURCE_URL,
            )


def _of_others(before: Sequence[EvalResult], figures: Sequence[EvalResult]) -> list[EvalResult]:
    """Those of a card's figures that are not of this command, and that it has no newer ones for."""
    known = {(each.unique_identifier, each.metric_type) for each in figures}
    return [
        each
        for each in before
        if each.source_name != SOURCE and (each.unique_identifier, each.metric_type) not in known
    ]
