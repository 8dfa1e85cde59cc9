"""What every model under mteb's `EncoderProtocol` has: its card, and cosines of its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mteb.models.model_meta import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim

if TYPE_CHECKING:
    from mteb.types import Array


class OneVector:
    """A model that makes one vector, of unit length, of each text."""

    def __init__(self, meta: ModelMeta) -> None:
        self._meta = meta

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
