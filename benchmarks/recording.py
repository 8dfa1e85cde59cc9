"""What a benchmark writes: JSON with machine, versions and command, and a table beside it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dewey_embed.eval.report.markup import page_to_markdown
from dewey_embed.eval.result_page import ResultPage

RESULTS = Path(__file__).parent / "results"


def write_rows(
    name: str,
    rows: list[dict[str, Any]],
    to_markdown: Callable[[dict[str, Any], list[dict[str, Any]]], str],
    *,
    packages: Sequence[str],
    **facts: Any,
) -> None:
    """Nothing; results/NAME.json holds the rows and how they came about, NAME.md their table.

    `facts` are more of what a reader must know; `to_markdown` is given them all.
    """
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        **facts,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    _write_table(path, to_markdown(about, rows))


def write_findings(found: ResultPage, path: Path) -> None:
    """Nothing; `path` then holds what was found, for `dewey report` too; its table lies beside."""
    found.write(path)
    _write_table(path, page_to_markdown(found) + "\n")


def cpu_name() -> str:
    """The processor's model, family, and what it multiplies fast."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in facts.items()}
    flags = values.get("flags", "").split()
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx2") if flag in flags]
    model = values.get("model name", platform.processor())
    family = f"family {values.get('cpu family')}, model {values.get('model')}"
    return f"{model} ({family}; {', '.join(fast)})"


def _write_table(path: Path, table: str) -> None:
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
