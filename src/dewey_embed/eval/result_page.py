"""`ResultPage`: the tables and plots of one measurement, in a file that a command writes.

Every audit and every evaluation ends in one of these, and the report draws nothing else. A file
holds all that a reader needs to judge a figure: the command, the machine, the versions.
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dewey_embed.config import Settings, fault
from dewey_embed.errors import ResultsError
from dewey_embed.files import write_text

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey

Cell = float | int | str | None

PACKAGES = ("dewey-embed", "torch", "mteb", "lancedb", "faiss-cpu", "transformers", "numpy")


class Column(Settings):
    """A column of a table: `unit` stands beside its name, and the `best` cell is marked."""

    name: str
    unit: str = ""
    best: Literal["highest", "lowest"] | None = None
    digits: int = 4


def interval_columns(
    name: str,
    *,
    unit: str = "",
    best: Literal["highest", "lowest"] | None = None,
    digits: int = 4,
) -> list[Column]:
    """The columns of a mean and of the ends of its interval."""
    ends = [Column(name=f"{name} {end}", unit=unit, digits=digits) for end in ("low", "high")]
    return [Column(name=name, unit=unit, best=best, digits=digits), *ends]


class Table(Settings):
    """Rows of cells under columns; `None` is a figure that was not measured.

    `best_in` says whether the best figure of each column is marked, or that of each row.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    best_in: Literal["column", "row"] = "column"
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of {self.title!r} has {len(row)} cells for "
                    f"{len(self.columns)} columns"
                )
        return self


class Series(Settings):
    """One line, set of points or row of bars; `low` and `high` are an interval around `y`."""

    name: str
    x: tuple[float | str, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    labels: tuple[str, ...] | None = None

    @classmethod
    def of_intervals(
        cls,
        name: str,
        x: Sequence[float | str],
        intervals: Sequence[tuple[float, float, float] | None],
    ) -> Self:
        """A series of means with the ends of their intervals; None is a gap."""
        ends = list(zip(*(each or (None,) * 3 for each in intervals), strict=True)) or [()] * 3
        return cls(name=name, x=tuple(x), y=ends[0], low=ends[1], high=ends[2])

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        for values in (self.y, self.low, self.high, self.labels):
            if values is not None and len(values) != len(self.x):
                raise ValueError(f"series {self.name!r}: {len(values)} values for {len(self.x)} x")
        return self


class Plot(Settings):
    """A picture: lines over x, points, bars by name, or bars of a histogram (x: left edges)."""

    title: str
    kind: Literal["line", "points", "bars", "histogram"]
    x_label: str
    y_label: str
    log_x: bool = False
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()


class Machine(Settings):
    """The machine of a measurement, and how it was set up."""

    processor: str
    capability: str
    cores: int
    threads: int | None = None
    device: str
    dtype: str = ""

    @classmethod
    def here(cls, *, device: str = "cpu", dtype: str = "") -> Machine:
        """The machine at hand, as it is set up now."""
        import torch

        from dewey_embed.model.device import usable_cores

        return cls(
            processor=_processor(),
            capability=torch.backends.cpu.get_cpu_capability(),
            cores=usable_cores(),
            threads=torch.get_num_threads(),
            device=device,
            dtype=dtype,
        )

    @classmethod
    def running(cls, model: Dewey) -> Machine:
        """The machine at hand, with the device and the precision of a model."""
        return cls.here(device=model.device.type, dtype=str(model.dtype).removeprefix("torch."))


def this_command() -> str:
    """The command that is running, quoted for the shell."""
    program, *rest = sys.argv
    name = Path(program).name
    words = ["python", program, *rest] if name.endswith(".py") else [name, *rest]
    return shlex.join(words)


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


class ResultPage(Settings):
    """A page of the report.

    `kind` groups pages: `eval`, `baseline`, `length`, `alignment`, `cost`, `ablation`, …;
    `name` differs from page to page of one report.
    """

    kind: str
    name: str
    title: str
    summary: str = ""
    command: str = Field(default_factory=this_command)
    date: str = Field(default_factory=lambda: datetime.now(tz=UTC).date().isoformat())
    machine: Machine
    versions: dict[str, str] = Field(default_factory=installed_versions)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()

    def write(self, path: Path) -> None:
        """Write the page to a file, which is complete or, if this is killed, as it was before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> ResultPage:
        """The page in a file.

        Raises:
            ResultsError: it cannot be read, or holds something else.

        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ResultsError(f"{path}: cannot be read: {error}") from None
        except ValidationError as error:
            item = error.errors()[0]
            place = ".".join(str(part) for part in item["loc"]) or "the file"
            raise ResultsError(
                f"{path}: is not a page of results: {place}: {fault(item)}"
            ) from None


def _processor() -> str:
    """The name of the processor, where the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
