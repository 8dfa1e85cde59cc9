"""Run commands under random faults, and write the table of what held.

`make faults` writes the table of docs/reliability.md; `--only 137` beside the same options repeats
one of their runs and shows what it found.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """The number of runs in which an invariant did not hold, 1 at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="how many runs")
    parser.add_argument(
        "--every-file", action="store_true", help="then damage each kind of file that they leave"
    )
    parser.add_argument("--seed", type=int, default=1, help="a number for other faults")
    parser.add_argument("--only", type=int, nargs="+", help="the numbers of the runs to repeat")
    parser.add_argument("--commands", nargs="+", help="only these commands: index, eval, …")
    parser.add_argument("--faults", nargs="+", help="only these: 'power loss', 'clock jump', …")
    parser.add_argument("--page", type=Path, help="the page in which the table is written again")
    parser.add_argument("--keep", type=Path, help="a folder that is kept, to look at the last run")
    given = parser.parse_args()

    from tests.faults.shim import library

    with tempfile.TemporaryDirectory(prefix="dewey-faults-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        built = library(folder)
        if built is None:
            sys.stderr.write("needs Linux and g++\n")
            return 1
        os.environ["LD_PRELOAD"] = str(built)
        from tests.commands import forks

        forks()
        del os.environ["LD_PRELOAD"]
        from tests.faults.table import run_all

        return run_all(folder.resolve(), given)


if __name__ == "__main__":
    sys.exit(main())
