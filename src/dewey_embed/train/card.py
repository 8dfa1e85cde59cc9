"""The result of a run → its model card: data and licences, command, hours, machine, figures."""

from __future__ import annotations

from collections.abc import Mapping
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


def card(result: Mapping[str, Any]) -> str:
    """Markdown with the hub's front matter, for `result` as `finish` in run.py makes it."""
    recipe, figures, machine = result["recipe"], renamed(result["figures"]), result["machine"]
    teacher, base = recipe["teacher"], recipe["base"]
    lines = [
        "---",
        "library_name: sentence-transformers",
        "license: apache-2.0",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, dewey, long-context, late-chunking, modernbert]",
        "---",
        "# A Dewey model",
        "",
        "One pass over a text of up to 131,072 tokens gives a vector for the whole text and one",
        "for each chunk, each chunk knowing its document. Trained by chunk alignment "
        "(arXiv 2503.20376) with [dewey-embed](https://pypi.org/project/dewey-embed/).",
        "",
        "## Training",
        f"- Command: `{result['command']}`",
        *([f"- Goes on from: {base['checkpoint']}"] if base else []),
        f"- Teacher: {teacher.get('model') or teacher.get('name')}",
        f"- {result['steps']:,} steps, {result['tokens']:,} tokens of the student, "
        f"{result['train_hours']:.2f} hours; the best checkpoint is that of step "
        f"{result['best_step']:,}",
        f"- Machine: {_machine(machine)}; torch {machine['torch']}",
        "",
        *_before(result),
        "## Data",
        "| source | weight | licence |",
        "|---|---|---|",
        *(
            f"| {_name(source)} | {source['weight']} | {source['licence'] or 'not stated'} |"
            for source in recipe["corpus"]["sources"]
        ),
        "",
        "## On held-out texts",
        "Measured by the command above, on texts that were never trained on.",
        "",
        "| figure | value |",
        "|---|---|",
        *(
            f"| {about} | {figures[name]:.3f} |"
            for name, about in FIGURES.items()
            if name in figures
        ),
        *(
            f"| passkey found at {name.partition('/')[2]} tokens | {value:.2f} |"
            for name, value in figures.items()
            if name.startswith("passkey/")
        ),
        "",
    ]
    return "\n".join(lines)


def _machine(machine: Mapping[str, Any]) -> str:
    """Cores, processor and devices."""
    cores = f"{machine['cores']} cores ({machine['processor']}, {machine['capability']})"
    return ", ".join((cores, *machine["devices"]))


def _before(result: Mapping[str, Any]) -> list[str]:
    """The runs that the model had behind it, and all of them together; nothing of a first run."""
    before = result["before"]
    if not before:
        return []
    runs = [*before, result]
    tokens, hours = (sum(run[key] for run in runs) for key in ("tokens", "train_hours"))
    return [
        "## Runs before",
        f"With these {len(runs)} runs, {tokens:,} tokens, {hours:.2f} hours.",
        "",
        "| command | tokens | hours | machine |",
        "|---|---|---|---|",
        *(
            f"| `{run['command']}` | {run['tokens']:,} | {run['train_hours']:.2f} | "
            f"{_machine(run['machine'])} |"
            for run in before
        ),
        "",
    ]


def _name(source: Mapping[str, Any]) -> str:
    """What a source is called: its id on the hub, or its file's name; and if it is only a part."""
    name = source["id"] if source["kind"] == "hub" else str(source["path"]).rpartition("/")[2]
    return f"{name}, what matches" if source.get("matching") else str(name)
