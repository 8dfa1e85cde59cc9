"""What runs of the targets came to: one file, and the table of it in SECURITY.md."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "SECURITY.md"
BEGIN, END = "<!-- fuzz -->", "<!-- /fuzz -->"


@dataclass(frozen=True, slots=True)
class Result:
    """The last run of a target.

    `broken` are cases that broke the promise, `crashes` those that ended the process, `hangs` those
    that took more than ten seconds.
    """

    cases: int
    seconds: int
    broken: int
    crashes: int
    hangs: int
    slowest_ms: float
    slowest_bytes: int
    command: str


def read_results() -> dict[str, Result]:
    """The results of each target that has some, in the order of the table."""
    if not RESULTS.exists():
        return {}
    values = json.loads(RESULTS.read_text("utf-8"))
    return {name: Result(**values[name]) for name in TARGETS if name in values}


def write_result(name: str, result: Result) -> None:
    """Put a result into the file and into the page."""
    results = {each: asdict(value) for each, value in read_results().items()}
    results[name] = asdict(result)
    ordered = {each: results[each] for each in TARGETS if each in results}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", "utf-8")
    if PAGE.exists():
        PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")


def with_table(page: str) -> str:
    """The page with the table of the results between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}"


def table() -> str:
    """The results as a table, and the commands that made them."""
    lines = [
        "| target | what holds of any bytes | cases | broken | crashes | over 10 s | slowest |"
    ]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    results = read_results()
    lines += [
        f"| `{name}` | {TARGETS[name].promise} | {each.cases:,} | {each.broken} | {each.crashes} "
        f"| {each.hangs} | {each.slowest_ms:,.0f} ms |"
        for name, each in results.items()
    ]
    commands = [each.command for each in results.values()]
    return "\n".join([*lines, "", "```sh", *commands, "```", ""])
