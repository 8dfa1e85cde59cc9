"""Values that are not finite: what in a model gives them first, and models that overflow later."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dewey_embed.model.device import default_dtype
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.packing import pack
from dewey_embed.printable import counted
from dewey_embed.types import Rows

_wider: WeakKeyDictionary[DeweyModel, DeweyModel] = WeakKeyDictionary()
"""Models in float16 that overflowed, and the same in a dtype that reaches further."""


def wider(model: DeweyModel, fault: Callable[[], str]) -> DeweyModel:
    """A model in float16, in bfloat16 where the device is fast at it, else in float32.

    Warns of the `fault` for which it is wanted, the first time.
    """
    if model not in _wider:
        dtype = default_dtype(next(model.parameters()).device)
        name = str(dtype).removeprefix("torch.")
        warnings.warn(
            f"texts that overflow float16 are read again in {name} (the first: {fault()}), which "
            f'takes more time and memory; load the model with dtype="{name}"',
            UserWarning,
            stacklevel=2,
        )
        weights = model.state_dict()
        with torch.device("meta"):
            twin = DeweyModel(model.config)
        with torch.inference_mode(False):
            twin.load_state_dict(
                {
                    key: weight.to(dtype) if weight.dtype == torch.float16 else weight
                    for key, weight in weights.items()
                },
                assign=True,
            )
        _wider[model] = twin.eval()
    return _wider[model]


@torch.inference_mode()
def first_fault(model: DeweyModel, sequences: Sequence[tuple[Rows, Rows]]) -> str:
    """Why a text has no sound vectors: what of the model first gives values that are not finite.

    It is looked for by passes in plain PyTorch over the text alone. `sequences` are the ids that
    are read at once, and for each id where its token begins in the text, in characters, or -1.
    """
    weight = next(model.parameters())
    kind = str(weight.dtype).removeprefix("torch.")
    for ids, places in sequences:
        watch = _Watch(model, places)
        try:
            hidden_TH = model.backbone(pack([ids], weight.device))
            projected = model.project(hidden_TH.mean(0, keepdim=True))
        finally:
            watch.end()
        if watch.found is not None:
            return f"its vectors are not finite: in {kind}, {watch.found}"
        if not projected.isfinite().all():
            return f"its vectors are not finite: in {kind}, the head gives {_kind(projected)}"
        if not projected.any():
            return f"its vector is zero: in {kind}, a norm's values are larger than it can square"
    return f"its vectors were zero or not finite in {kind}, and are not in plain PyTorch"


class _Watch:
    """Looks at what the parts of a model give, until one gives values that are not finite."""

    def __init__(self, model: DeweyModel, places: Rows) -> None:
        self.found: str | None = None
        self._model, self._places = model, places
        self._num_seen = Counter[str]()
        self._handles = [
            part.register_forward_hook(lambda part, _, out, name=name: self._look(name, part, out))
            for name, part in model.backbone.named_modules(prefix="backbone")
            if not any(part.children())
        ]

    def end(self) -> None:
        """Stop looking."""
        for handle in self._handles:
            handle.remove()

    def _look(self, name: str, part: nn.Module, out: Tensor) -> None:
        """Look at one output; a row passes through layers in slices."""
        before = self._num_seen[name]
        self._num_seen[name] += len(out)
        if self.found is not None or bool((finite := out.isfinite()).all()):
            return
        first = before + int((~finite).flatten(1).any(1).int().argmax())
        place = int(self._places[first])
        where = f"character {place:,}" if place >= 0 else "its start"
        self.found = (
            f"{_named(self._model, name)} gives {_kind(out)} from {where} on{_weights(name, part)}"
        )


def _named(model: DeweyModel, name: str) -> str:
    """The name of a part, with the number of its layer."""
    words = name.split(".")
    if "layers" not in words:
        return name
    number = int(words[words.index("layers") + 1]) + 1
    return f"{name} (layer {number} of {len(model.backbone.layers)})"


def _kind(values: Tensor) -> str:
    """Whether values are NaN, infinite, or both."""
    kinds = {"NaN": values.isnan(), "infinity": values.isinf()}
    return " and ".join(name for name, has in kinds.items() if has.any())


def _weights(name: str, part: nn.Module) -> str:
    """The tensors of a part that hold such values themselves, in words."""
    counts = {key: int((~weight.isfinite()).sum()) for key, weight in part.state_dict().items()}
    return "".join(
        f"; its tensor {name}.{key} holds {counted(count, 'NaN or infinite value')}"
        for key, count in counts.items()
        if count
    )
