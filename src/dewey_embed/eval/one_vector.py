"""What every model under mteb's `EncoderProtocol` has: its card, and cosines of its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.model_meta import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim

from dewey_embed.errors import ResultsError

if TYPE_CHECKING:
    from mteb.types import Array


class OneVector:
    """A model that makes one vector, of unit length, of each text.

    `earlier_meta` is the card under which earlier versions kept the model's results, if another.
    """

    def __init__(self, meta: ModelMeta, *, earlier_meta: ModelMeta | None = None) -> None:
        self._meta = meta
        self.earlier_meta = earlier_meta

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb's result files say of the model."""
        return self._meta

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Cosines (N1, N2) of all pairs."""
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Cosines (N,) of rows with the rows beside them."""
        return pairwise_cos_sim(embeddings1, embeddings2)


def finite_rows(vectors: Any, texts: Sequence[str], model: str) -> Any:
    """The vectors (N, D) of N texts, as they are.

    Raises:
        ResultsError: one holds NaN or infinity, or they are not one for each text; names the model
            and the text.

    """
    rows = np.asarray(vectors.float().cpu() if hasattr(vectors, "cpu") else vectors)
    if rows.ndim != 2 or len(rows) != len(texts):
        raise ResultsError(
            f"{model} made vectors of shape {rows.shape} of {len(texts):,} texts; expected one row "
            "for each text"
        )
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        place = int(finite.argmin())
        raise ResultsError(
            f"{model} made {int((~finite).sum()):,} of {len(rows):,} vectors with NaN or infinity, "
            f"first of the text that begins {texts[place][:40]!r}; no score is taken from them. "
            "Try another device or precision, or look at the model's weights"
        )
    return vectors
