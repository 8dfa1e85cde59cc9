"""A Ray cluster for the length of a run: this machine's own cores, or one that is there.

Ray is kept quiet: it sends nothing about its use, starts no dashboard, and prints nothing.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dewey_embed.errors import ClusterError, ConfigError, first_line
from dewey_embed.extras import needs, require
from dewey_embed.printable import counted

LOCAL = "local"
"""The address of a cluster that is made of this machine, and ends with the run."""

AUTO = "auto"
"""The address of the cluster that runs on this machine."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # every line matches
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_worker_niceness": "0",  # that of the command itself
}
"""Variables that Ray reads when it is imported, and hands to the processes that it starts."""

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that hold the token of a cluster, or its file."""
TOKEN_FILE = ".ray/auth_token"
"""The file of the token in a home, where `ray start` looks and writes."""

ANSWER_S = 10.0
"""A cluster's head takes a connection within that time; Ray itself would ask for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The processes that encode: how many, and the cores and GPUs of each.

    `num` is `None` for as many as the cluster has room for; `gpus` for one where the cluster has
    any.
    """

    num: int | None = None
    cpus: int = 1
    gpus: float | None = None


class Node(NamedTuple):
    """A machine of a cluster, by its cores and GPUs."""

    cpus: float
    gpus: float


def check_workers(address: str, workers: Workers) -> None:
    """Refuse what can be refused before Ray starts, which takes seconds.

    Raises:
        ClusterError: the cluster takes no connection, or this machine has less room.
        ConfigError: an impossible number.
        MissingDependencyError: Ray is not installed.

    """
    if workers.cpus < 1 or (workers.num is not None and workers.num < 1):
        raise ConfigError(
            f"{workers.num} workers of {workers.cpus} cores; give whole numbers from 1 on"
        )
    gpus = workers.gpus or 0.0
    if not 0 <= gpus < math.inf or (gpus > 1 and gpus % 1):
        raise ConfigError(
            f"workers of {workers.gpus:g} GPUs; give a whole number, or a part of one from 0 to 1"
        )
    require("cluster", "encoding on Ray", "ray", "lance_ray")
    _require_answer(address)
    if address == LOCAL and not _is_connected():
        fitted(workers, [_this_machine()], address)


def _is_connected() -> bool:
    """Whether this process is part of a cluster already; Ray takes a second to import."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _this_machine() -> Node:
    import torch

    from dewey_embed.model.device import usable_cores

    return Node(usable_cores(), torch.cuda.device_count())


@contextmanager
def connected(address: str, workers: Workers, *, cores: int | None = None) -> Iterator[Workers]:
    """A connection to a cluster; the workers that it has room for, all numbers known.

    One that is made of this machine counts as having its cores, or another number of `cores`.

    Raises:
        ClusterError: there is no such cluster, or it has less room.
        ConfigError: an impossible number.
        MissingDependencyError: Ray is not installed.

    """
    if cores is None:
        check_workers(address, workers)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    has_token = any(map(os.environ.get, TOKENS)) or (Path.home() / TOKEN_FILE).exists()
    if has_token and "ray" not in sys.modules:  # which has read it; its processes would ask for one
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does; `ray.init` does not
    warnings.filterwarnings("ignore", "lance is not fork-safe", UserWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.")
    with needs("cluster", "encoding on Ray"):
        import lance_ray  # noqa: F401 - workers need it
        import ray
        import ray.data
    # Retries of a pool have no other way in yet; after the import, which shows all of Ray's.
    warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
    was_connected = _is_connected()
    if not was_connected:
        _connect(address, cores)
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)
    try:
        yield fitted(workers, _nodes(), address)
    finally:
        if not was_connected:
            with suppress(Exception):
                ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse a `host:port` that takes no connection.

    Raises:
        ClusterError: naming it.

    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return  # "auto", "local"
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ClusterError:
    reason = first_line(error)
    if address == LOCAL:
        return ClusterError(
            f"Ray cannot be started on this machine: {reason}; try again, or leave --ray out"
        )
    return ClusterError(
        f"the Ray cluster at {address!r} cannot be reached: {reason}; start one with "
        "`ray start --head`, or leave the address out to use this machine; where it runs on "
        "another machine, that one's token (`ray get-auth-token`) belongs into RAY_AUTH_TOKEN here"
    )


def _connect(address: str, cores: int | None) -> None:
    """Connect to a cluster, or start one here.

    Raises:
        ClusterError: it does not answer.

    """
    import ray
    from ray._private.services import canonicalize_bootstrap_address  # no public one finds it

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        own = _this_machine()
        options |= {"num_cpus": cores or int(own.cpus), "num_gpus": int(own.gpus)}
        options |= {"include_dashboard": False}
    try:
        with _silence(), _own_endings():
            if address == AUTO:
                # Ray notes the latest cluster of a machine, and waits minutes for one that ended.
                address = canonicalize_bootstrap_address(AUTO) or AUTO
                _require_answer(address)
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _unreachable(address, error) from None


@contextmanager
def _own_endings() -> Iterator[None]:
    """Keep the handler of SIGTERM: Ray sets others, one of which prints its own stack and dies."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray's own code, in C++, says about its logs off the terminal."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _nodes() -> list[Node]:
    """The machines of the cluster that this process is part of."""
    import ray

    resources = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    return [Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in resources]


def fitted(workers: Workers, nodes: Sequence[Node], address: str) -> Workers:
    """The workers with all numbers known, once it is sure that there is room for them.

    Each needs its cores and GPUs on one machine; Ray would wait for ever for one that has them.

    Raises:
        ClusterError: there is less room.

    """
    gpus = workers.gpus
    if gpus is None:
        gpus = float(any(node.gpus >= 1 for node in nodes))
    room = sum(
        min(int(node.cpus // workers.cpus), _parts(node.gpus, gpus) if gpus else sys.maxsize)
        for node in nodes
    )
    num = workers.num or max(room, 1)
    if num > room:
        most = " and ".join(
            f"{max((getattr(node, kind.lower()) for node in nodes), default=0):g} {kind}"
            for kind in ("CPUs", "GPUs")
        )
        what = "this machine" if address == LOCAL else f"the Ray cluster at {address!r}"
        has = f"has {most}" if len(nodes) == 1 else f"has {len(nodes):,} machines of up to {most}"
        raise ClusterError(
            f"{what} {has}, room for {counted(room, 'worker')} of {workers.cpus} CPUs and {gpus:g} "
            f"GPUs each, not for {num:,}; ask for "
            + (f"at most {room:,} (--workers), or for smaller ones" if room else "smaller ones")
            + " (--worker-cpus, --worker-gpus)"
        )
    return Workers(num=num, cpus=workers.cpus, gpus=gpus)


def _parts(has: float, each: float) -> int:
    """How many workers a machine's GPUs are enough for; no part is made of two GPUs."""
    return int(has // each) if each >= 1 else int(has) * int(1 / each)
