"""All runs, with their progress, and the table of what held."""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dewey_embed.files import write_text
from tests.faults.faults import FAULTS
from tests.faults.operations import OPERATIONS
from tests.faults.runs import Laboratory, Outcome

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"


def run_all(folder: Path, given: argparse.Namespace) -> int:
    """Run all numbers, print each, and write the page: 1 if an invariant did not hold, else 0."""
    laboratory = Laboratory(folder, given.seed, given.commands, given.faults)
    pairs = laboratory.plan(given.runs)
    pairs += laboratory.every_file() if given.every_file else []
    numbers = given.only or range(len(pairs))
    outcomes = []
    for done, number in enumerate(numbers, start=1):
        outcome = laboratory.run(number, *pairs[number])
        outcomes.append(outcome)
        sys.stdout.write(f"[{done}/{len(numbers)}] {outcome.line()} ({outcome.seconds:.1f} s)\n")
        for failure in outcome.failures:
            sys.stdout.write(f"     {failure}\n")
        sys.stdout.flush()
    failed = sum(bool(each.failures) for each in outcomes)
    sys.stdout.write(f"{len(outcomes)} runs, {failed} failed\n")
    if given.page is not None:
        write_page(given.page, outcomes, given.seed, laboratory.skipped)
    return int(failed > 0)


def write_page(page: Path, outcomes: Sequence[Outcome], seed: int, skipped: dict[str, str]) -> None:
    """Write the table between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    write_text(page, f"{head}{BEGIN}\n{table(outcomes, seed, skipped)}\n{END}{tail}")


def table(outcomes: Sequence[Outcome], seed: int, skipped: dict[str, str]) -> str:
    """Faults by commands: in how many of how many runs every invariant held."""
    commands = list(dict.fromkeys(operation.name for operation in OPERATIONS))
    cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for each in outcomes:
        for command in (each.command, "all"):
            cells[each.fault, command].append(not each.failures)
            cells["all", command].append(not each.failures)
    rows = [["fault", *commands, "all"], ["---"] * (len(commands) + 2)]
    faults = dict.fromkeys([*(each.name for each in FAULTS), *(each.fault for each in outcomes)])
    for fault in (*faults, "all"):
        found = [cells[fault, command] for command in (*commands, "all")]
        rows.append([fault, *(f"{sum(each)}/{len(each)}" if each else "" for each in found)])
    held = sum(not each.failures for each in outcomes)
    struck = sum(each.happened for each in outcomes)
    today = datetime.datetime.now(datetime.UTC).date()
    command = shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])
    said = (
        f"{len(outcomes)} runs on {today}, seed {seed}: in {held} every invariant held; in "
        f"{struck} the fault met the command before its end. `{command}`"
    )
    notes = [f"Left out: {fault} ({reason})." for fault, reason in skipped.items()]
    return "\n\n".join([said, "\n".join(f"| {' | '.join(row)} |" for row in rows), *notes])
