"""Runs of a recipe by one process, or by two that share it by DDP or by FSDP 2, on CPUs."""

import os
import shutil
import warnings
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed import fsdp

from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.run import RunFolder, train
from tests.train.groups import run_in_two

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Layer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What `accelerate launch` sets for recipes/accelerate/fsdp8.yaml."""


class Run(NamedTuple):
    """A run: its recipe, changes of it, its folder, and its kind, "one", "ddp" or "fsdp"."""

    recipe: object
    changes: tuple[str, ...]
    folder: object
    targets: object
    kind: str = "one"


def perform(run):
    """Train in this process, which may be one of several."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(read_recipe(run.recipe, run.changes), RunFolder(run.folder, run.targets))


def perform_in_two(runs):
    """Train all of them, one after another, in the same two processes."""
    run_in_two(_member, runs, last=180)


def _member(rank, runs):
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    for run in runs:
        kind = FSDP if run.kind == "fsdp" else {}
        values = {**group, **kind}
        with patch.dict(os.environ, values), fsdp_on_cpus() as shared_out:
            AcceleratorState._reset_state(reset_partial_state=True)
            perform(run)
            assert shared_out.called == (run.kind == "fsdp")


@contextmanager
def fsdp_on_cpus():
    """A block in which accelerate uses FSDP on CPUs, as torch does; by itself it wants GPUs.

    Gives what knows whether modules were shared out in it.
    """
    begin = PartialState.__init__

    def begin_as_on_gpus(self, *arguments, **named):
        begin(self, *arguments, **named)
        if "ACCELERATE_USE_FSDP" in os.environ and self.num_processes > 1:
            self.distributed_type = DistributedType.MULTI_GPU

    with (
        patch.object(PartialState, "__init__", begin_as_on_gpus),
        patch.object(fsdp, "fully_shard", wraps=fsdp.fully_shard) as shared_out,
    ):
        yield shared_out


def broken_off(run, step, to, kind):
    """A copy of a run that was killed after the checkpoint of this step, to go on as `kind`."""
    shutil.copytree(run.folder, to)
    for checkpoint in (to / "checkpoints").glob("checkpoint-*"):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(to / "model")
    (to / "result.json").unlink()
    return run._replace(folder=to, kind=kind)
