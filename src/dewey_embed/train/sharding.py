"""What processes share among them, put together and shared out again: batches, weights, moments.

A checkpoint holds complete tensors whatever kind of run wrote it, so that another number of
processes goes on from it, by DDP, by FSDP 2, or alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, Sampler

from dewey_embed.errors import RunError


def processes() -> PartialState:
    """The processes of this run; one, unless a launcher has started several."""
    return PartialState(cpu=not torch.cuda.is_available())


class SharedBatches(BatchSampler):
    """Batches of `batch_samples`, of each the share of process `rank` of `num_ranks`.

    The shares of a batch follow one another and differ by one sample at most, so that all processes
    together read in each step what one process would.

    Raises:
        RunError: a batch has fewer samples than there are processes.

    """

    def __init__(
        self, sampler: Sampler[int], batch_samples: int, *, rank: int = 0, num_ranks: int = 1
    ) -> None:
        if batch_samples < num_ranks:
            raise RunError(
                f"training.batch_samples is {batch_samples}, fewer than the {num_ranks} processes "
                "that share a batch; raise it, or start fewer"
            )
        super().__init__(sampler, batch_samples, drop_last=True)
        self._first, self._end = (batch_samples * part // num_ranks for part in (rank, rank + 1))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[self._first : self._end]


def complete(value: Any) -> Any:
    """A value; a tensor that processes share is complete. All of them call it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def complete_state(optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state as one process without others has it. All processes call it together."""
    state = optimizer.state_dict()
    moments = {
        number: {name: complete(value) for name, value in own.items()}
        for number, own in state["state"].items()
    }
    return {**state, "state": moments}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model complete weights, of which a process keeps its share."""
    model.load_state_dict(
        {name: _shared(weights[name], own) for name, own in model.state_dict().items()}
    )


def load_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimiser a complete state, of which a process keeps its share."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    moments = {
        number: {name: _shared(value, parameters[number]) for name, value in own.items()}
        for number, own in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def _shared(value: Any, like: Tensor) -> Any:
    """A complete value as processes share `like`, if they do and it is as large."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # Every process has read it: none is sent.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


BROKEN = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""What messages of errors say whose cause is another process, which is gone."""


@contextmanager
def named_loss_of_others(what_next: Callable[[], str]) -> Iterator[None]:
    """A block in which it is one clear error if another process of the group ends.

    Launchers send SIGTERM to those that are left, which may come first: what is next is then noted
    on whatever ends the block.

    Raises:
        RunError: another process ended; says what is next.

    """
    try:
        yield
    except Exception as error:
        if not (_in_group() and isinstance(error, RuntimeError) and _is_of_group(error)):
            raise
        raise RunError(
            f"process {dist.get_rank()} of {dist.get_world_size()} has lost another one, which "
            f"was killed or has failed; run the same command again, {what_next()}"
        ) from None
    except BaseException as error:
        if _in_group():
            error.add_note(f"run the same command again, {what_next()}")
        raise


def _in_group() -> bool:
    """Whether this process is one of several."""
    return dist.is_initialized() and dist.get_world_size() > 1


def _is_of_group(error: RuntimeError) -> bool:
    """Whether an error is that of processes that do not reach each other."""
    return isinstance(error, dist.DistError) or any(each in str(error) for each in BROKEN)
