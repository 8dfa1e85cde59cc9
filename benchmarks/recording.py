"""Result files of benchmarks: JSON with machine, versions and command, and a table beside it."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from dewey_embed.eval.report.markup import page_to_markdown
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.files import write_json, write_text
from dewey_embed.model.device import usable_cores

RESULTS = Path(__file__).parent / "results"


def write_rows(
    name: str,
    rows: list[dict[str, Any]],
    to_markdown: Callable[[dict[str, Any], list[dict[str, Any]]], str],
    *,
    packages: Sequence[str],
    **facts: Any,
) -> None:
    """Write results/NAME.json, with the rows and their origin, and their table as NAME.md.

    `facts` are further facts about the run; `to_markdown` receives all of them.
    """
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages if installed(package)},
        **facts,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, {**about, "rows": rows}, indent=2)
    _write_table(path, to_markdown(about, rows))


def write_page(page: ResultPage, path: Path) -> None:
    """Write a page of results to `path`, for `dewey report` too, and its table beside it."""
    page.write(path)
    _write_table(path, page_to_markdown(page) + "\n")


def versions_of_peers(about: dict[str, Any]) -> str:
    """Other packages and their versions in a line."""
    versions = about["versions"].items()
    return ", ".join(f"{name} {number}" for name, number in versions if name != "dewey-embed")


def installed(package: str) -> bool:
    """Whether a package is installed: not all peers are everywhere."""
    return next(iter(distributions(name=package)), None) is not None


def cpu_name() -> str:
    """The processor's model, family, and its fast kinds of product."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in facts.items()}
    flags = values.get("flags", "").split()
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx2") if flag in flags]
    model = values.get("model name", platform.processor())
    family = f"family {values.get('cpu family')}, model {values.get('model')}"
    return f"{model} ({family}; {', '.join(fast)})"


def _write_table(path: Path, table: str) -> None:
    write_text(path.with_suffix(".md"), table)
    sys.stdout.write(table)
