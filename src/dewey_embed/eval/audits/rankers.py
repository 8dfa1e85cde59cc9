"""Models of the baseline audit: Dewey's index in its modes, and mteb's protocols."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ResultsError
from dewey_embed.eval.models import is_peer, open_peer
from dewey_embed.eval.tasks import SPLIT, retrieval_metadata
from dewey_embed.index.index import Index
from dewey_embed.types import Document, Floats, SearchMode

if TYPE_CHECKING:
    from mteb.types import PromptType

TOP_K = 10
BATCH_TEXTS = 32


class Texts:
    """Texts by id, as mteb reads its tables.

    A table of `datasets` hashes itself at every step: tens of milliseconds a query, which would be
    measured as the peer's.
    """

    def __init__(self, **columns: Sequence[str]) -> None:
        self.features = columns

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.features)

    def add_column(self, name: str, values: Sequence[str]) -> Texts:
        """The table with another column."""
        return Texts(**self.features, **{name: values})

    def __len__(self) -> int:
        return len(self.features["id"])

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return list(self.features[key])
        return {name: values[key] for name, values in self.features.items()}

    def __iter__(self) -> Iterator[dict[str, str]]:
        return (self[row] for row in range(len(self)))


class Ranker:
    """A model that indexes documents and ranks them for one query at a time, in its modes."""

    modes: Sequence[str] = ("",)

    def __init__(self, name: str, identity: str) -> None:
        self.name, self.identity = name, identity

    def index(self, documents: Mapping[str, str], folder: Path, *, progress: bool) -> None:
        """Index documents by id; `folder` is for its files."""
        raise NotImplementedError

    def rank(self, query: str, mode: str) -> dict[str, float]:
        """Scores of the ten best documents."""
        raise NotImplementedError

    def num_bytes(self) -> int | None:
        """Bytes of the index on disk; `None` if unknown."""
        raise NotImplementedError


def open_ranker(name: str, *, device: str | None = None) -> Ranker:
    """The ranker of a name: a peer's, or a Dewey model's.

    Raises:
        ConfigError: the name is not one of a model.
        CheckpointError: its folder cannot be loaded.
        TeacherError: its endpoint does not respond.
        MissingDependencyError: its package is not installed.

    """
    if not is_peer(name):
        return DeweyRanker(name, Dewey.load(name, device=device))
    from mteb.models.models_protocols import SearchProtocol

    # Without a cache, so that each encoding is timed.
    peer = open_peer(name, device=device)
    kind = SearchRanker if isinstance(peer, SearchProtocol) else EncoderRanker
    return kind(name, peer)


class DeweyRanker(Ranker):
    """A Dewey model through `Index`, as its users search; one index for all modes."""

    modes: Sequence[str] = ("single", "multi", "hybrid")

    def __init__(self, name: str, model: Dewey) -> None:
        super().__init__(Path(name).name, model.fingerprint)
        self._model = model
        self._index: Index | None = None

    def index(self, documents: Mapping[str, str], folder: Path, *, progress: bool) -> None:
        """Index documents in `folder`."""
        self._index = Index.open(folder, self._model)
        texts = (Document(id=name, text=text) for name, text in documents.items())
        self._index.add(texts, progress=progress)

    def rank(self, query: str, mode: str) -> dict[str, float]:
        """Scores of the ten best documents, whose passages are looked up too."""
        assert self._index is not None, "index() comes first"
        hits = self._index.search(query, TOP_K, mode=cast(SearchMode, mode))
        return {hit.document_id: hit.score for hit in hits}

    def num_bytes(self) -> int | None:
        """Bytes of all files of the index: texts, words, vectors."""
        assert self._index is not None, "index() comes first"
        return folder_bytes(self._index.path)


class PeerRanker(Ranker):
    """A peer under mteb's protocols, with the arguments by which mteb names a task to it."""

    def __init__(self, name: str, peer: Any) -> None:
        super().__init__(name, f"{name}-{peer.mteb_model_meta.revision}")
        self._peer = peer
        about = retrieval_metadata(
            "Baseline", path=name, revision="1", description="A corpus of the user's own."
        )
        self._arguments = {"task_metadata": about, "hf_split": SPLIT, "hf_subset": "default"}


class SearchRanker(PeerRanker):
    """A peer that searches by itself, such as BM25."""

    def index(self, documents: Mapping[str, str], folder: Path, *, progress: bool) -> None:
        """Give the documents to the peer."""
        with redirect_stderr(io.StringIO()):  # its progress bars
            self._peer.index(_texts(documents), **self._arguments, encode_kwargs={}, num_proc=None)

    def rank(self, query: str, mode: str) -> dict[str, float]:
        """Scores of the ten best documents."""
        with redirect_stderr(io.StringIO()):
            hits = self._peer.search(
                _texts({"q": query}),
                **self._arguments,
                top_k=TOP_K,
                encode_kwargs={},
                num_proc=None,
            )
        return dict(hits["q"])

    def num_bytes(self) -> int | None:
        """Bytes of what bm25s saves; None for other peers, which save nothing."""
        retriever = getattr(self._peer, "retriever", None)
        if retriever is None:
            return None
        with tempfile.TemporaryDirectory(prefix="dewey-audit-") as folder:
            retriever.save(folder, show_progress=False)
            return folder_bytes(Path(folder))


class EncoderRanker(PeerRanker):
    """A peer that encodes texts; a query is compared with every document."""

    _vectors: Floats
    _ids: list[str]

    def index(self, documents: Mapping[str, str], folder: Path, *, progress: bool) -> None:
        """Encode the documents.

        Raises:
            ResultsError: the peer makes a vector with NaN or infinity.

        """
        from mteb.types import PromptType

        self._ids = list(documents)
        self._vectors = self._encode(list(documents.values()), PromptType.document)
        finite = np.isfinite(self._vectors).all(axis=1)
        if not finite.all():
            raise ResultsError(
                f"{self.name} made a vector with NaN or infinity of document "
                f"{self._ids[int(finite.argmin())]!r}; nothing can be ranked by it"
            )

    def rank(self, query: str, mode: str) -> dict[str, float]:
        """Scores of the ten best documents by the peer's own similarity."""
        from mteb.types import PromptType

        vector = self._encode([query], PromptType.query)
        scores = np.asarray(self._peer.similarity(vector, self._vectors))[0]
        best = np.argsort(-scores, kind="stable")[:TOP_K]
        return {self._ids[place]: float(scores[place]) for place in best}

    def num_bytes(self) -> int | None:
        """Bytes of the vectors."""
        return int(self._vectors.nbytes)

    def _encode(self, texts: Sequence[str], kind: PromptType) -> Floats:
        """(N, D) of texts, which are all queries or all documents."""
        import torch
        from torch.utils.data import DataLoader

        rows: Any = _texts({str(number): text for number, text in enumerate(texts)})
        vectors = self._peer.encode(
            DataLoader(rows, batch_size=BATCH_TEXTS),
            **self._arguments,
            prompt_type=kind,
            batch_size=BATCH_TEXTS,
            show_progress_bar=False,
        )
        return np.asarray(
            vectors.cpu() if isinstance(vectors, torch.Tensor) else vectors, np.float32
        )


def finite(scores: dict[str, float], name: str, query: str) -> dict[str, float]:
    """The scores, all of them numbers.

    Raises:
        ResultsError: one of them is NaN or infinite.

    """
    wrong = [document for document, score in scores.items() if not math.isfinite(score)]
    if wrong:
        raise ResultsError(
            f"{name} scored document {wrong[0]!r} {scores[wrong[0]]} for query {query!r}; "
            "nothing can be ranked by it"
        )
    return scores


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _texts(texts: Mapping[str, str]) -> Any:
    """A table of texts by id that mteb accepts as one of `datasets`."""
    return Texts(id=list(texts), text=list(texts.values()), title=[""] * len(texts))
