"""A model's card: data and licences, command, hours, machine, figures; of a run or of a merging."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dewey_embed.train.recipe import renamed

FIGURES = {
    "chunk_cosine": "chunks: cosine to the teacher's vector of the chunk alone",
    "cls_cosine": "CLS: cosine to the teacher's vector of the whole text",
    "short_cls_cosine": "CLS of texts of up to 30 tokens",
    "similarity_correlation": "correlation of the chunks' similarities with the teacher's",
    "target_recall_at_1": "share of chunks nearest to their own target",
    "extra_tightness": "how much closer a text's chunks lie together than the teacher's",
}

CONTEXTUAL_FIGURES = FIGURES | {
    "chunk_cosine": "chunks: cosine to their targets",
    "chunk_cosine_contextual": "{contextual_chunks:,.0f} chunks with contextual targets: cosine to "
    "the teacher's vector of the chunk under its title and heading",
    "chunk_cosine_plain": "{plain_chunks:,.0f} chunks with plain targets: cosine to the teacher's "
    "vector of the chunk alone",
}
"""The same of a run with contextual targets."""

CARD = "README.md"
LICENCE = "apache-2.0"
AXES_TEXT = """## Axes
Vectors stand along their principal axes: `truncate_dim` keeps the first dimensions, which say most.
`teacher_axes.safetensors` turns them back: `vectors @ model.teacher_axes.T` are comparable with the
teacher's own vectors, and `teacher_vectors @ model.teacher_axes` with the model's.
"""
DATA_HEADING = ("## Data", "| source | weight | licence |", "|---|---|---|")


def card(result: Mapping[str, Any]) -> str:
    """Markdown with the hub's front matter, for `result` as `finish` in run.py makes it."""
    recipe, figures, machine = result["recipe"], renamed(result["figures"]), result["machine"]
    teacher, base, sources = recipe["teacher"], recipe["base"], recipe["corpus"]["sources"]
    lines = [
        # Who trained on texts of an unknown licence has to say what the model's is.
        *_beginning(LICENCE if all(source["licence"] for source in sources) else None),
        "## Training",
        f"- Command: `{result['command']}`",
        *([f"- Goes on from: {base['checkpoint']}"] if base else []),
        f"- Teacher: {teacher.get('model') or teacher.get('name')}",
        f"- {result['steps']:,} steps, {result['tokens']:,} tokens of the student, "
        f"{result['train_hours']:.2f} hours; the best checkpoint is that of step "
        f"{result['best_step']:,}",
        f"- Machine: {_machine(machine)}; torch {machine['torch']}",
        "",
        *_runs_before(result),
        *DATA_HEADING,
        *(
            f"| {_name(source)} | {source['weight']} | {source['licence'] or 'not stated'} |"
            for source in sources
        ),
        "",
        "## On held-out texts",
        "Measured by the command above, on texts that were never trained on.",
        "",
        "| figure | value |",
        "|---|---|",
        *(
            f"| {about} | {value:.3f} |"
            for about, value in figure_rows(figures, contextual=bool(recipe.get("context")))
        ),
        "",
    ]
    return "\n".join(lines)


def figure_rows(figures: Mapping[str, float], *, contextual: bool) -> list[tuple[str, float]]:
    """What the figures of a run say, each with its value; `contextual` if its recipe has contexts.

    Where pass keys were found stands at the end.
    """
    meanings = CONTEXTUAL_FIGURES if contextual else FIGURES
    rows = [
        (about.format_map(figures), figures[name])
        for name, about in meanings.items()
        if name in figures
    ]
    return rows + [
        (f"passkey found at {name.partition('/')[2]} tokens", value)
        for name, value in figures.items()
        if name.startswith("passkey/")
    ]


def _machine(machine: Mapping[str, Any]) -> str:
    """Cores, processor and devices."""
    cores = f"{machine['cores']} cores ({machine['processor']}, {machine['capability']})"
    return ", ".join((cores, *machine["devices"]))


def merged_card(
    command: str,
    models: Sequence[tuple[str, float, str | None]],
    runs: Sequence[Mapping[str, Any]],
    data: Sequence[str],
) -> str:
    """The card of models that were merged, each with its share and its licence.

    `runs` are those behind all of them, `data` the rows of their tables of data. The card names a
    licence where it is that of all.
    """
    licences = {licence for _, _, licence in models}
    lines = [
        *_beginning(licences.pop() if len(licences) == 1 else None),
        "## Merged",
        "The mean of these models' weights, taken in float32 (a model soup, arXiv 2203.05482).",
        "",
        f"- Command: `{command}`",
        "",
        "| model | share | licence |",
        "|---|---|---|",
        *(
            f"| {name} | {share:.4g} | {licence or 'not stated'} |"
            for name, share, licence in models
        ),
        "",
        "## Runs behind them",
        f"{len(runs)} runs, each counted once: {_amounts(runs)}.",
        *_table(runs),
        *([*DATA_HEADING, *data, ""] if data else []),
    ]
    return "\n".join(lines)


def with_axes(card: str) -> str:
    """The card of a model whose vectors stand in axes of their own; it says so once."""
    if AXES_TEXT in card:
        return card
    return f"{card.rstrip()}\n\n{AXES_TEXT}"


def licence_of(folder: Path) -> str | None:
    """The licence that a model's card names, if any."""
    from huggingface_hub import ModelCard

    try:
        licence: str | None = ModelCard.load(folder / CARD).data.get("license")
    except Exception:  # no card, or metadata that nobody can read
        return None
    return licence


def data_rows(folder: Path) -> list[str]:
    """The rows of the table of data in a model's card; none where it has no such table."""
    try:
        lines = (folder / CARD).read_text(encoding="utf-8").splitlines()
        start = lines.index(DATA_HEADING[0])
    except (OSError, ValueError):
        return []
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 1 :])
    return [row for row in rows if row not in DATA_HEADING]


def _beginning(licence: str | None) -> list[str]:
    """The hub's front matter, and what a Dewey model is."""
    return [
        "---",
        "library_name: sentence-transformers",
        *([] if licence is None else [f"license: {licence}"]),
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, dewey, long-context, late-chunking, modernbert]",
        "---",
        "# A Dewey model",
        "",
        "One pass over a text of up to 131,072 tokens gives a vector for the whole text and one",
        "for each chunk, each chunk knowing its document. Trained by chunk alignment "
        "(arXiv 2503.20376) with [dewey-embed](https://pypi.org/project/dewey-embed/).",
        "",
    ]


def _runs_before(result: Mapping[str, Any]) -> list[str]:
    """The runs that the model had behind it, and all of them together; nothing of a first run."""
    before = result["before"]
    if not before:
        return []
    number = "1 run" if len(before) == 1 else f"{len(before)} runs"
    together = _amounts([*before, result])
    return ["## Runs before", f"{number}; with this one {together}.", *_table(before)]


def _amounts(runs: Sequence[Mapping[str, Any]]) -> str:
    """The tokens and hours of runs."""
    tokens, hours = (sum(run[key] for run in runs) for key in ("tokens", "train_hours"))
    return f"{tokens:,} tokens, {hours:.2f} hours"


def _table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each run."""
    return [
        "",
        "| command | tokens | hours | machine |",
        "|---|---|---|---|",
        *(
            f"| `{run['command']}` | {run['tokens']:,} | {run['train_hours']:.2f} | "
            f"{_machine(run['machine'])} |"
            for run in runs
        ),
        "",
    ]


def _name(source: Mapping[str, Any]) -> str:
    """What a source is called: its id on the hub, or its file's name; and if it is only a part."""
    name = source["id"] if source["kind"] == "hub" else str(source["path"]).rpartition("/")[2]
    return f"{name}, what matches" if source.get("matching") else str(name)
