"""What runs of the targets came to: one file, and the table of it in SECURITY.md."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dewey_embed.files import locked, write_json, write_text
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "SECURITY.md"
BEGIN, END = "<!-- fuzz -->", "<!-- /fuzz -->"


@dataclass(frozen=True, slots=True)
class Result:
    """The runs of a target since one found something, or that run.

    `broken` are cases that broke the promise, `crashes` those that ended the process, `hangs` those
    that took more than ten seconds.
    """

    runs: int
    cases: int
    seconds: int
    broken: int
    crashes: int
    hangs: int
    slowest_ms: float
    slowest_bytes: int

    @property
    def faults(self) -> int:
        """Cases in which the promise did not hold."""
        return self.broken + self.crashes + self.hangs

    def __add__(self, later: Result) -> Result:
        """Both, unless either found something: then the later one alone."""
        if self.faults or later.faults:
            return later
        slowest = max(self, later, key=lambda each: each.slowest_ms)
        return Result(
            self.runs + later.runs, self.cases + later.cases, self.seconds + later.seconds,
            0, 0, 0, slowest.slowest_ms, slowest.slowest_bytes,
        )  # fmt: skip


def read_results() -> dict[str, Result]:
    """The results of each target that has some, in the order of the table."""
    if not RESULTS.exists():
        return {}
    values = json.loads(RESULTS.read_text("utf-8"))
    return {name: Result(**values[name]) for name in TARGETS if name in values}


def keep_result(name: str, result: Result) -> None:
    """Write what a target came to into the file and the page."""
    with locked(RESULTS.with_suffix(".lock"), remove=True, wait=True):  # of other targets' runs
        _keep(name, result)


def _keep(name: str, result: Result) -> None:
    results = {each: asdict(value) for each, value in read_results().items()}
    results[name] = asdict(result)
    ordered = {each: results[each] for each in TARGETS if each in results}
    write_json(RESULTS, ordered, indent=1)
    if PAGE.exists():
        write_text(PAGE, with_table(PAGE.read_text("utf-8")))


def with_table(page: str) -> str:
    """The page with the table of the results between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}"


def table() -> str:
    """The results as a table."""
    lines = [
        "| target | what holds of any bytes | runs | cases | broken | crashes | over 10 s "
        "| slowest |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    results = read_results()
    lines += [
        f"| `{name}` | {TARGETS[name].promise} | {each.runs} | {each.cases:,} | {each.broken} "
        f"| {each.crashes} | {each.hangs} | {each.slowest_ms:,.0f} ms |"
        for name, each in results.items()
    ]
    return "\n".join([*lines, ""])
