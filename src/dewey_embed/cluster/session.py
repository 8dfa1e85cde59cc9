"""A Ray cluster for the length of a run: this machine's own cores, or one that is there.

Ray is kept quiet: it sends nothing about its use, starts no dashboard, and prints nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dewey_embed.errors import ClusterError, ConfigError
from dewey_embed.extras import needs

LOCAL = "local"
"""The address of a cluster that is made of this machine, and ends with the run."""

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


@contextmanager
def connected(address: str, workers: Workers) -> Iterator[Workers]:
    """A connection to a cluster; the workers that it has room for, all numbers known.

    Raises:
        ClusterError: there is no such cluster, or it has less room.
        ConfigError: an impossible number.
        MissingDependencyError: Ray is not installed.

    """
    if workers.cpus < 1 or (workers.num is not None and workers.num < 1):
        raise ConfigError(
            f"{workers.num} workers of {workers.cpus} cores; give whole numbers from 1 on"
        )
    _require_answer(address)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if any(map(os.environ.get, TOKENS)) or (Path.home() / TOKEN_FILE).exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does; `ray.init` does not
    warnings.filterwarnings("ignore", "lance is not fork-safe", UserWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.")
    # Retries of a pool's tasks have no other way in yet.
    warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
    with needs("cluster", "encoding on Ray"):
        import lance_ray  # noqa: F401 - workers need it
        import ray
        import ray.data
    was_connected = ray.is_initialized()
    if not was_connected:
        _connect(address, workers)
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)
    try:
        yield _fitted(workers, ray.cluster_resources(), address)
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
    reason = str(error).strip().split("\n", 1)[0][:300]
    return ClusterError(
        f"the Ray cluster at {address!r} cannot be reached: {reason}; start one with "
        "`ray start --head`, or leave the address out to use this machine; where it runs on "
        "another machine, that one's token (`ray get-auth-token`) belongs into RAY_AUTH_TOKEN here"
    )


def _connect(address: str, workers: Workers) -> None:
    """Connect to a cluster, or start one here.

    Raises:
        ClusterError: it does not answer.

    """
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        # As many as the workers ask for, though there are fewer; what reads the sources takes none.
        cpus = max(_cores(), (workers.num or 1) * workers.cpus)
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        with _silence(), _own_endings():
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


def _cores() -> int:
    from dewey_embed.model.device import usable_cores

    return usable_cores()


def _fitted(workers: Workers, resources: dict[str, float], address: str) -> Workers:
    """The workers with all numbers known, once it is sure that there is room for them."""
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    each = workers.gpus if workers.gpus is not None else float(gpus >= 1)
    room = cpus // workers.cpus
    if each:
        room = min(room, int(gpus / each))
    num = workers.num or max(room, 1)
    if num > room or num < 1:
        raise ClusterError(
            f"the Ray cluster at {address!r} has {cpus:,} CPUs and {gpus:g} GPUs, room for "
            f"{room:,} workers of {workers.cpus} CPUs and {each:g} GPUs each, not for {num:,}; "
            "ask for fewer, or for smaller ones"
        )
    return Workers(num=num, cpus=workers.cpus, gpus=each)
