"""The command that repeats a run, as results, histories and cards have it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping

SETTINGS = ("DEWEY_SET", "DEWEY_TARGETS")
"""Variables in place of options that are not on the command line."""

FSDP_OPTIONS = {
    "FSDP_VERSION": "--fsdp_version",
    "FSDP_AUTO_WRAP_POLICY": "--fsdp_auto_wrap_policy",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "--fsdp_transformer_layer_cls_to_wrap",
    "FSDP_RESHARD_AFTER_FORWARD": "--fsdp_reshard_after_forward",
    "FSDP_STATE_DICT_TYPE": "--fsdp_state_dict_type",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "--fsdp_cpu_ram_efficient_loading",
    "FSDP_OFFLOAD_PARAMS": "--fsdp_offload_params",
}
"""accelerate's options, by the variables in which its processes find them."""


def this_command() -> str:
    """The command that is running, quoted for the shell, with the launcher of its processes.

    Ports and names of machines, which are others the next time, are no part of it.
    """
    set_by = [name for name in SETTINGS if name in os.environ]
    settings = [f"{name}={shlex.quote(os.environ[name])}" for name in set_by]
    return " ".join([*settings, shlex.join([*launcher(os.environ), *sys.argv[1:]])])


def launcher(environment: Mapping[str, str]) -> list[str]:
    """The words that start `dewey` as a process with these variables was started.

    >>> " ".join(launcher({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}))
    'torchrun --nnodes 2 --nproc_per_node 4 -m dewey_embed.cli'
    """
    processes = int(environment.get("WORLD_SIZE", "1"))
    if "WORLD_SIZE" not in environment:
        return ["dewey"]
    each = int(environment.get("LOCAL_WORLD_SIZE", processes))
    machines = processes // each
    precision = environment.get("ACCELERATE_MIXED_PRECISION")
    if precision is None:  # accelerate always sets it
        several = ["--nnodes", str(machines)] if machines > 1 else []
        return ["torchrun", *several, "--nproc_per_node", str(each), "-m", "dewey_embed.cli"]
    kind = ["--multi_gpu"]
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        known = [name for name in FSDP_OPTIONS if name in environment]
        settings = (word for name in known for word in (FSDP_OPTIONS[name], environment[name]))
        kind = ["--use_fsdp", *settings]
    return [
        *("accelerate", "launch", *kind, "--mixed_precision", precision),
        *("--num_machines", str(machines), "--num_processes", str(processes)),
        *("--module", "dewey_embed.cli"),
    ]
