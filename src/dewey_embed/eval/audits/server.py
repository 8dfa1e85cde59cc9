"""`dewey audit server`: what an embedding endpoint, ours or another's, does with its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dewey_embed.errors import ConfigError
from dewey_embed.eval.audits.server_checks import (
    CHECKS,
    SHORTEST,
    TOPICS,
    Audit,
    Check,
    Finding,
    LengthRow,
    Status,
    UnmeasuredError,
)
from dewey_embed.eval.audits.server_client import (
    ApiName,
    connect,
    redacted,
    secrets_in,
)
from dewey_embed.eval.result_page import (
    Column,
    Machine,
    Plot,
    ResultPage,
    Series,
    Table,
    this_command,
)
from dewey_embed.printable import counted
from dewey_embed.progress import progress_bar

MAX_TOKENS = 16_384
"""Tokens of the longest text that is sent, unless another number is given."""

TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What a check has shown; `remedy` is empty where nothing is to be done."""

    topic: str
    name: str
    status: Status
    evidence: str
    remedy: str
    figures: Mapping[str, Any]

    @classmethod
    def of(cls, check: Check, finding: Finding) -> CheckResult:
        """The result of a check by its finding."""
        return cls(
            topic=check.topic,
            name=check.name,
            status=finding.status,
            evidence=finding.evidence,
            remedy=check.remedy if finding.status == "fail" else "",
            figures=finding.figures,
        )


@dataclass(frozen=True, kw_only=True)
class ServerResults:
    """The results of all checks of a server, those of one topic together."""

    url: str
    api: ApiName
    model: str | None
    checks: tuple[CheckResult, ...]
    lengths: tuple[LengthRow, ...]
    command: str

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that fail."""
        return [check for check in self.checks if check.status == "fail"]

    @property
    def summary(self) -> str:
        """The numbers of checks by what they have shown."""
        counts = {
            status: sum(check.status == status for check in self.checks)
            for status in ("pass", "fail", "cannot tell")
        }
        model = f", model {self.model}" if self.model else ""
        return (
            f"{self.url} ({self.api}{model}): {counts['pass']} pass, {counts['fail']} fail, "
            f"{counts['cannot tell']} cannot tell"
        )

    def as_json(self) -> dict[str, Any]:
        """The results as values of JSON."""
        return {
            "url": self.url,
            "api": self.api,
            "model": self.model,
            "failed": len(self.failed),
            "checks": [vars(check) | {"figures": dict(check.figures)} for check in self.checks],
            "lengths": [row._asdict() for row in self.lengths],
        }

    def page(self) -> ResultPage:
        """The results as a page of the report."""
        return ResultPage(
            kind="server",
            name=self.url,
            title=f"A server of embeddings: {self.url}",
            summary=self.summary,
            command=self.command,
            machine=Machine.here(device="that of the client; the server's is not known"),
            tables=(_checks_table(self.checks), *_length_tables(self.lengths)),
            plots=_length_plots(self.lengths),
        )


def audit_server(
    url: str,
    *,
    api: ApiName | Literal["auto"] = "auto",
    model: str | None = None,
    key: str | None = None,
    max_tokens: int = MAX_TOKENS,
    timeout_s: float = TIMEOUT_S,
    progress: bool = False,
) -> ServerResults:
    """The results of all checks of the server at an address.

    `auto` speaks the first of OpenAI's, TEI's and Ollama's API that the server answers; without
    `model` it is the first one that the server lists. The key is shown nowhere.

    Raises:
        ConfigError: `max_tokens` is below 256, or the address or the key cannot be used.
        EndpointError: the server cannot be reached, or speaks none of the APIs.

    """
    if max_tokens < SHORTEST:
        raise ConfigError(f"--max-tokens is {max_tokens}; need at least {SHORTEST}")
    results = []
    with connect(url, api=api, model=model, key=key, timeout_s=timeout_s) as server:
        audit = Audit(server=server, max_tokens=max_tokens)
        checks = [check for check in CHECKS if server.name in check.apis]
        with progress_bar("auditing", len(checks), "checks", show=progress) as advance:
            for check in checks:
                advance.work_on(f"{check.topic}: {check.name}")
                results.append(CheckResult.of(check, _finding(check, audit)))
                advance(1)
        return ServerResults(
            url=server.url,
            api=server.name,
            model=server.model,
            checks=tuple(sorted(results, key=lambda each: TOPICS.index(each.topic))),
            lengths=tuple(audit.by_length),
            command=redacted(this_command(), secrets_in(url, key)),
        )


def _finding(check: Check, audit: Audit) -> Finding:
    """The finding of a check, also where a request of it brought nothing to compare."""
    try:
        return check.run(audit)
    except UnmeasuredError as error:
        return error.finding


def _checks_table(checks: Sequence[CheckResult]) -> Table:
    """Every check with its evidence."""
    columns = ("topic", "check", "result", "evidence", "remedy")
    return Table(
        title="Checks",
        columns=tuple(Column(name=name) for name in columns),
        rows=tuple(
            (each.topic, each.name, each.status, each.evidence, each.remedy or None)
            for each in checks
        ),
        notes=("`cannot tell` is a check whose requests brought nothing to compare.",),
    )


def _length_tables(lengths: Sequence[LengthRow]) -> tuple[Table, ...]:
    """How much the ends of a text count at each length, where any was measured."""
    if not lengths:
        return ()
    table = Table(
        title="Texts that differ at one end only",
        columns=(
            Column(name="about", unit="tokens", digits=0),
            Column(name="another end", unit="1 − cosine", digits=8),
            Column(name="another start", unit="1 − cosine", digits=8),
        ),
        rows=tuple(lengths),
        notes=(f"{counted(len(lengths), 'length')}; 0 is an end that does not count.",),
    )
    return (table,)


def _length_plots(lengths: Sequence[LengthRow]) -> tuple[Plot, ...]:
    """The table of lengths as a picture."""
    if not lengths:
        return ()
    tokens = tuple(float(row.tokens) for row in lengths)
    plot = Plot(
        title="Texts that differ at one end only",
        kind="line",
        x_label="tokens",
        y_label="1 − cosine",
        log_x=True,
        series=(
            Series(name="another end", x=tokens, y=tuple(row.end for row in lengths)),
            Series(name="another start", x=tokens, y=tuple(row.start for row in lengths)),
        ),
    )
    return (plot,)
