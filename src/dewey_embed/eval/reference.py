"""The paper's own figures by task, shown beside what is measured.

Source: arXiv 2503.20376, tables of §4 (LoCoV1: nDCG@10 at 64K; LongEmbed: the mean over six
tasks). Measured on the released 395M model, not on ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class PaperFigures(NamedTuple):
    """Scores in the paper: the teacher's at 8K tokens, Dewey's at 64K with one vector or many."""

    teacher: float
    single: float
    multi: float


LOCOV1: Mapping[str, PaperFigures] = MappingProxyType(
    {
        "2wikimqa": PaperFigures(0.9067, 0.9051, 0.9775),
        "courtlistener_HTML": PaperFigures(0.3670, 0.3616, 0.4775),
        "courtlistener_Plain_Text": PaperFigures(0.3761, 0.3485, 0.4426),
        "gov_report": PaperFigures(0.9837, 0.9883, 0.9853),
        "legal_case_reports": PaperFigures(0.5432, 0.5875, 0.6534),
        "multifieldqa": PaperFigures(0.9327, 0.9564, 0.9754),
        "passage_retrieval": PaperFigures(0.3407, 0.7389, 0.8550),
        "qasper_abstract": PaperFigures(0.9982, 0.9982, 0.9982),
        "qasper_title": PaperFigures(0.9833, 0.9742, 0.9840),
        "qmsum": PaperFigures(0.7237, 0.7613, 0.8154),
        "stackoverflow": PaperFigures(0.9760, 0.9369, 0.9443),
        "summ_screen_fd": PaperFigures(0.9635, 0.9821, 0.9788),
    }
)

PREFIX = "LoCoV1-"

LONGEMBED = {"single": 0.7798, "multi": 0.8659}
"""Means over LongEmbed's six tasks."""


def paper_figures(task: str) -> PaperFigures | None:
    """The paper's scores on a task, `LoCoV1-…`; `None` where it has none."""
    return LOCOV1.get(task.removeprefix(PREFIX)) if task.startswith(PREFIX) else None
