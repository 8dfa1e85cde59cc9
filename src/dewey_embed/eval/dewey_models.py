"""A Dewey model as mteb sees one: `DeweyEncoder` gives vectors, `DeweySearch` searches with chunks.

Both keep what they encode on disk, so that a task that is run again, or in another mode, needs no
second pass: texts by model and hash, corpora as the indexes that `dewey search` reads. What
`DeweySearch` measures is therefore what users of `Index` get.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import IndexStoreError, ResultsError
from dewey_embed.eval.model_meta import model_meta
from dewey_embed.eval.one_vector import OneVector
from dewey_embed.index.ranking import Mode
from dewey_embed.search import Index
from dewey_embed.types import Document

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import (
        Array,
        BatchedInput,
        CorpusDatasetType,
        EncodeKwargs,
        QueryDatasetType,
        RetrievalOutputType,
        TopRankedDocumentsType,
    )
    from torch.utils.data import DataLoader


class DeweyEncoder(OneVector):
    """A Dewey model under mteb's `EncoderProtocol`: one vector for each text."""

    def __init__(self, model: Dewey, *, show: bool = False) -> None:
        super().__init__(model_meta(model))
        self.model = model
        self._show = show

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Array:
        """(N, D) float32, unit length.

        The prompt is the model's own: for the task by name, else for its type, else for queries
        and documents, in mteb's order; none where the model has none of these.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        name = get_prompt_name(self.model.prompts, task_metadata, prompt_type)
        return self.model.encode(texts, prompt_name=name, progress=self._show)


class DeweySearch(DeweyEncoder):
    """A Dewey model under mteb's `SearchProtocol`, in one of the modes of `Index.search`.

    `cache` is a folder of indexes, one for each model, way of cutting and corpus. Tasks that do
    not search fall back on the single vector.
    """

    def __init__(
        self,
        model: Dewey,
        cache: Path,
        *,
        mode: Mode = "multi",
        chunk_tokens: int | Sequence[int] = CHUNK_TOKENS,
        chunk_overlap: int | Sequence[int] | None = None,
        show: bool = False,
    ) -> None:
        super().__init__(model, show=show)
        self.mode = mode
        self._cut = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
        self._cache = cache
        self._index: Index | None = None
        told: dict[str, Any] = {"mode": mode}
        if mode != "single":
            told |= {key: value for key, value in self._cut.items() if value is not None}
        plain = self._meta
        # `hybrid` ranks otherwise than when results were kept as experiments: they are not its own.
        if mode != "hybrid":
            self.earlier_meta = plain.model_copy(update={"experiment_kwargs": told})
        # mteb loads what lies under a model's own name by default, and no experiments.
        self._meta = plain.model_copy(update={"name": f"{plain.name}-{_suffix(told)}"})

    def index(
        self,
        corpus: CorpusDatasetType,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: EncodeKwargs,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Nothing; the corpus is then indexed, or was already. A killed run goes on."""
        documents = [
            Document(id=row["id"], title=row.get("title") or "", text=row["text"]) for row in corpus
        ]
        digest = hashlib.sha256(repr(self._cut).encode())
        for each in documents:
            digest.update(
                f"{each.id}\0{each.title}\0{each.text}\0".encode("utf-8", "surrogatepass")
            )
        name = f"{task_metadata.name}-{hf_subset}-{hf_split}-{digest.hexdigest()[:16]}"
        path = self._cache / self.model.fingerprint / name
        try:
            self._index = Index.open(path, self.model, **self._cut)  # type: ignore[arg-type]
            self._index.add(documents, progress=self._show)
        except IndexStoreError as error:
            raise ResultsError(
                f"{path}: this index of an earlier evaluation cannot be used ({error}); delete it, "
                "and it is made again"
            ) from None

    def search(
        self,
        queries: QueryDatasetType,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: EncodeKwargs,
        top_ranked: TopRankedDocumentsType | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> RetrievalOutputType:
        """The scores of each query's `top_k` best documents; of its candidates in reranking.

        A query without words finds no document, and a warning names it.
        """
        index = self._index
        assert index is not None, "mteb calls index() before search()"
        num = max(1, len(index) if top_ranked else min(top_k, len(index)))
        texts = dict(zip(queries["id"], queries["text"], strict=True))
        asked = {name: text for name, text in texts.items() if text.strip()}
        if blank := [name for name in texts if name not in asked]:
            warnings.warn(
                f"{task_metadata.name}: {len(blank):,} queries without words find no document, "
                f"such as {blank[0]!r}",
                UserWarning,
                stacklevel=2,
            )
        ranked = index.rank(list(asked.values()), num, mode=self.mode, progress=self._show)
        found: RetrievalOutputType = {name: {} for name in texts}
        found |= {name: dict(hits) for name, hits in zip(asked, ranked, strict=True)}
        if not top_ranked:
            return found
        return {
            name: {key: scores[key] for key in top_ranked[name] if key in scores}
            for name, scores in found.items()
        }


def _suffix(told: Mapping[str, Any]) -> str:
    """What tells a mode from the others in a model's name: `single`, `multi-128`."""
    mode, chunks, overlap = (told.get(key) for key in ("mode", "chunk_tokens", "chunk_overlap"))
    parts = [str(mode), *_numbers(chunks)]
    if overlap is not None:
        parts += ["overlap", *_numbers(overlap)]
    return "-".join(parts)


def _numbers(values: int | Sequence[int] | None) -> list[str]:
    if values is None:
        return []
    return [str(value) for value in ((values,) if isinstance(values, int) else values)]
