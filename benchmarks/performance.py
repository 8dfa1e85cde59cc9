"""docs/performance.md, its pictures and the README's table, from the other benchmarks' results.

    python benchmarks/performance.py

Nothing is measured here: each part is the table that a benchmark wrote, with its command.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from recording import RESULTS

from dewey_embed.eval.report.plots import render
from dewey_embed.eval.result_page import Plot, Series

ROOT = Path(__file__).parents[1]
PARTS = {
    "encode": (
        "One long document",
        "Dewey's time includes the vectors of all chunks. `difference` is from Sentence "
        "Transformers' float32 vector, relative to its length.",
    ),
    "encode_short": (
        "One text of up to 2,048 tokens",
        "OpenVINO is among the peers; `difference` is from Dewey's bfloat16 vector here.",
    ),
    "encode_512": (
        "One text of 512 tokens, in fifteen rounds",
        "OpenVINO's rounds for base fall into two kinds; encode_512.json beside its table has all.",
    ),
    "encode_32768": ("32,768 tokens", ""),
    "encode_131072": ("The whole context", "One pass, with the vectors of all chunks."),
    "encode_131072_large": ("The whole context, ModernBERT-large's shape", ""),
    "encode_corpus": (
        "A mixed corpus",
        "Documents of every evaluation task, short and long; Dewey's and late chunking's time "
        "includes the vectors of all chunks, Sentence Transformers makes none.",
    ),
    "chunks": ("What chunk vectors cost", ""),
    "precision": ("What speed costs in exactness", ""),
    "search": ("Search, 100,000 chunks", ""),
    "search_million": ("Search, a million chunks", ""),
    "start": ("From the shell to the answer", ""),
    "train": ("Training", ""),
    "gpu": ("On a GPU", ""),
}
NO_GPU = (
    "Not measured: no GPU was at hand. `python benchmarks/gpu.py` and `python benchmarks/train.py` "
    "are ready for one."
)
HEAD = """<!-- Written by `python benchmarks/performance.py` from result files: change those. -->
# Performance

Every table was written by the command above it, on the machine named there. Engines take turns in
one run, each warmed up; figures are medians. `benchmarks/` holds the code, with peers' settings.
"""
README_ROWS = ("8,192 tokens",)

DRAWN = ("encode_short", "encode", "encode_32768", "encode_131072")
"""Results whose figures are points of a picture; of those of one length the first one's."""

ENGINES = {
    "Dewey, with all chunks": "dewey, bfloat16",
    "OpenVINO": "openvino, bfloat16",
    "transformers": "transformers, bfloat16",
    "Sentence Transformers": "sentence-transformers, bfloat16",
}
PICTURES = {"base": "ModernBERT-base's shape", "mini": "the mini's shape"}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    folder = ROOT / "docs" / "performance"
    folder.mkdir(exist_ok=True)
    parts = [HEAD]
    for shape, title in PICTURES.items():
        picture = render(speed_by_length(shape, title))
        (folder / f"{shape}.svg").write_text(picture.svg, encoding="utf-8")
        (folder / f"{shape}.png").write_bytes(picture.png)
        parts.append(f"![Tokens a second by length, {title}](performance/{shape}.png)\n")
    for name, (title, about) in PARTS.items():
        path = RESULTS / f"{name}.md"
        if path.exists():
            table = re.sub(r"^#+ .*\n+", "", path.read_text(encoding="utf-8"))
            parts.append("\n\n".join(filter(None, [f"## {title}", about, table.strip()])) + "\n")
    if not (RESULTS / "gpu.md").exists():
        parts.append(f"## On a GPU\n\n{NO_GPU}\n")
    (ROOT / "docs" / "performance.md").write_text("\n".join(parts), encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    begin, end = "<!-- speed -->\n", "<!-- /speed -->"
    before, rest = text.split(begin)
    readme.write_text(f"{before}{begin}{short_table()}{end}{rest.split(end)[1]}", encoding="utf-8")


def speed_by_length(shape: str, title: str) -> Plot:
    """Tokens a second of one document, engine by engine, from the results there are."""
    found: dict[tuple[str, int], float] = {}
    for name in DRAWN:
        for row in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]:
            if row["shape"] == shape:
                length = int(row["texts"].split()[0].replace(",", ""))
                found.setdefault((row["engine"], length), row["tokens_per_second"])
    series = []
    for name, engine in ENGINES.items():
        lengths = sorted(length for known, length in found if known == engine)
        speeds = tuple(found[engine, length] for length in lengths)
        series.append(Series(name=name, x=tuple(lengths), y=speeds))
    return Plot(
        title=f"One document, {title}",
        kind="line",
        x_label="document length (tokens)",
        y_label="tokens a second on two cores, bfloat16",
        log_x=True,
        series=tuple(series),
    )


def short_table() -> str:
    """The command and the rows of encode.md that the README shows."""
    lines = (RESULTS / "encode.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    chosen = [line for line in table[2:] if line.split("|")[2].strip() in README_ROWS]
    return "\n".join([lines[0], "", *table[:2], *chosen]) + "\n"


if __name__ == "__main__":
    main()
