"""Names of models → models under mteb's protocols: Dewey's, and the peers to compare them with.

`PEERS` has a row for each kind of peer; any other name is a Dewey model's: `mini`, a folder, a
Hugging Face id.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import CheckpointError, ConfigError, first_line
from dewey_embed.eval.chunk_vectors import CHUNK_CONTEXTS
from dewey_embed.eval.vector_cache import VectorCache
from dewey_embed.files import sha256
from dewey_embed.types import Floats, SearchMode

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.models.models_protocols import EncoderProtocol, MTEBModels, SearchProtocol

MODES: tuple[SearchMode, ...] = ("single", "multi", "hybrid")

BM25_K1, BM25_B = 0.9, 0.4
BM25_STEMMER = "english"
"""Snowball's English stemmer, of PyStemmer: the usual one of BM25 baselines."""

ST, OPENAI = "st:", "openai:"
ENDPOINT_TOKENS = 8192
"""A recipe must give a limit; texts are sent uncut, and the server cuts them or refuses."""

BATCH_TEXTS = 32
"""Texts that mteb's wrapper of Sentence Transformers takes together."""

INDEXES, VECTORS, CHUNKS = "indexes", "vectors", "chunks"
"""Folders of the cache: Dewey's indexes, the peers' vectors, Dewey's of chunks."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model in one mode: its name as given, the label of its column, and how to open it."""

    name: str
    label: str
    open: Callable[[], MTEBModels]


def open_models(
    names: Sequence[str],
    *,
    mode: SearchMode | Literal["all"] = "all",
    cache_folder: Path,
    device: str | None = None,
    chunk_tokens: int | Sequence[int] | None = None,
    chunk_overlap: int | Sequence[int] | None = None,
    contexts: Sequence[str] = (),
    window: int | None = None,
    show: bool = False,
) -> list[EvaluatedModel]:
    """The models to measure, in the order of their names; a Dewey model once in each mode.

    With `contexts`, names of `CHUNK_CONTEXTS`, a model ranks chunks, once for each that it knows;
    `window` is the most tokens that a Dewey model then reads at once.

    Models are loaded when they are first needed, and a Dewey model once for all of its modes.

    Raises:
        ConfigError: a name comes twice, or a peer knows none of the contexts.

    """
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise ConfigError(f"{', '.join(sorted(twice))} is given twice; name each model once")
    labels = _labels(names)
    if contexts:
        return [
            each
            for name, label in labels.items()
            for each in _in_contexts(
                name, label, contexts, cache_folder, device=device, window=window, show=show
            )
        ]
    models = []
    for name, label in labels.items():
        if is_peer(name):
            peer = partial(open_peer, name, device=device, cache=cache_folder / VECTORS)
            models.append(EvaluatedModel(name=name, label=name, open=peer))
            continue
        load = cache(partial(Dewey.load, name, device=device))
        for each in MODES if mode == "all" else (mode,):
            search = partial(
                _open_dewey, load, cache_folder / INDEXES, mode=each,
                chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap, show=show,
            )  # fmt: skip
            models.append(EvaluatedModel(name=name, label=f"{label} {each}", open=search))
    return models


def _labels(names: Sequence[str]) -> dict[str, str]:
    """What each model is called in a column: a Dewey model by the end of its path that is its own.

    >>> _labels(["bm25", "runs/a/model", "runs/b/model", "models/large"])
    {'bm25': 'bm25', 'runs/a/model': 'a/model', 'runs/b/model': 'b/model', 'models/large': 'large'}
    """
    parts = {name: Path(name).parts for name in names}
    labels = {name: name for name in names}
    for name, own in parts.items():
        for number in range(len(own) if not is_peer(name) else 0, 0, -1):
            end = own[-number:]
            if sum(other[-number:] == end for other in parts.values()) == 1:
                labels[name] = str(Path(*end))
    return labels


def _in_contexts(
    name: str,
    label: str,
    contexts: Sequence[str],
    cache_folder: Path,
    *,
    device: str | None,
    window: int | None,
    show: bool,
) -> Iterator[EvaluatedModel]:
    """A model that ranks chunks, once for each of the contexts that it knows.

    Raises:
        ConfigError: it is a peer, and knows none of them.

    """
    peer = is_peer(name)
    if peer and not any(CHUNK_CONTEXTS[context].is_text for context in contexts):
        known = ", ".join(each for each, way in CHUNK_CONTEXTS.items() if way.is_text)
        raise ConfigError(
            f"{name} reads chunks as texts, and not {', '.join(contexts)}; leave it out, or add "
            f"{known} to the contexts"
        )
    load: Callable[[], Any] = (
        cache(partial(open_peer, name, device=device, cache=cache_folder / VECTORS))
        if peer
        else cache(partial(Dewey.load, name, device=device))
    )
    for context in contexts:
        is_text = CHUNK_CONTEXTS[context].is_text
        if peer and not is_text:
            continue
        own_window = None if is_text else window
        column = f"{label} {context}"
        open_model = partial(
            _open_chunks, load, cache_folder / CHUNKS,
            context=context, window=own_window, show=show,
        )  # fmt: skip
        yield EvaluatedModel(
            name=name, label=f"{column}, window {own_window:,}" if own_window else column,
            open=open_model,
        )  # fmt: skip


def _open_chunks(
    load: Callable[[], Any], cache: Path, *, context: str, window: int | None, show: bool
) -> MTEBModels:
    from dewey_embed.eval.chunk_task import ChunkReader, PeerChunks

    model = load()
    if isinstance(model, Dewey):
        return ChunkReader(model, cache, context=context, window=window, show=show)
    return PeerChunks(model, context)


def is_peer(name: str) -> bool:
    """Whether a name is a peer's, and so no Dewey model's."""
    return _row_of(name) in PEERS


def open_peer(name: str, *, device: str | None = None, cache: Path | None = None) -> MTEBModels:
    """The peer of a name, ready for `mteb.evaluate`.

    `cache` is a folder for its vectors, by model and text; without one they are kept in memory.

    Raises:
        ConfigError: the name is not a peer's, or an endpoint's is not `openai:URL#MODEL`.
        CheckpointError: a Sentence Transformers model cannot be loaded.
        TeacherError: an endpoint cannot be reached, or does not return vectors.
        MissingDependencyError: a package is not installed.

    """
    row = _row_of(name)
    if row not in PEERS:
        usages = ", ".join(peer.usage for peer in PEERS.values())
        raise ConfigError(f"no peer {name!r}; peers: {usages}")
    return PEERS[row].open(name.removeprefix(row) if ":" in row else name, device, cache)


def _row_of(name: str) -> str:
    """The name's row in `PEERS`, if it has one: the name itself, or its prefix with the colon."""
    prefix, colon, _ = name.partition(":")
    return prefix + colon


def _open_dewey(load: Callable[[], Dewey], cache: Path, **options: Any) -> MTEBModels:
    from dewey_embed.eval.adapters import DeweySearch

    return DeweySearch(load(), cache, **options)


def _open_minilm(name: str, device: str | None, cache: Path | None) -> MTEBModels:
    from dewey_embed.eval.adapters import open_minilm

    return open_minilm(name, device=device, cache=cache)


def _open_bm25(name: str, device: str | None, cache: Path | None) -> SearchProtocol:
    """BM25 for English, by mteb's class over bm25s: no stop words, Snowball's stemmer."""
    if not sys.stderr.isatty():  # bm25s draws bars everywhere, and mteb lets it
        os.environ.setdefault("DISABLE_TQDM", "1")
    import mteb
    from mteb.models.model_implementations.bm25 import BM25Search

    from dewey_embed.eval.adapters import OWNER

    # By default mteb drops words that nine documents in ten have.
    model: Any = BM25Search(tokenizer=bm25_words, freq_threshold=0, k1=BM25_K1, b=BM25_B)
    update = {
        "loader": None,
        "name": f"{OWNER}/bm25",
        "revision": f"k1-{BM25_K1}-b-{BM25_B}-{BM25_STEMMER}",
    }
    meta = mteb.get_model_meta("mteb/baseline-bm25s")
    model.mteb_model_meta = meta.model_copy(update=update)
    return cast("SearchProtocol", model)


def bm25_words(text: str) -> list[str]:
    """The words that BM25 counts: lower case, without English stop words, stemmed."""
    from bm25s.tokenization import STOPWORDS_EN

    words = [word for word in re.findall(r"\w+", text.lower()) if word not in STOPWORDS_EN]
    stems: list[str] = _stemmer().stemWords(words)
    return stems


@cache
def _stemmer() -> Any:
    from Stemmer import Stemmer

    return Stemmer(BM25_STEMMER)


def _open_sentence_transformer(
    name: str, device: str | None, cache: Path | None
) -> EncoderProtocol:
    """A Sentence Transformers model in mteb's own wrapper: a folder, or a Hugging Face id.

    A folder's revision is the digest of its files, so that a model that is trained further is
    taken for another one.
    """
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    folder = Path(name).expanduser()
    is_folder = folder.is_dir()
    hub_name = name if "/" in name else f"sentence-transformers/{name}"
    if not is_folder:
        _require_on_hub(name, hub_name)
    try:
        loaded = SentenceTransformer(str(folder.resolve()) if is_folder else name, device=device)
    except (OSError, ValueError) as error:
        raise _no_sentence_transformer(name, first_line(error)) from None

    class Cached(SentenceTransformerEncoderWrapper):
        """mteb's wrapper over our cache, which lets no NaN and no damage through to a score."""

        def encode(self, inputs: Any, *, task_metadata: Any, **options: Any) -> Any:
            """One finite vector for each text; prompts depend on the task and the side."""
            texts = [text for batch in inputs for text in batch["text"]]
            side = getattr(options.get("prompt_type"), "value", "text")
            file = vectors and vectors / task_metadata.name / f"{side}.sqlite"
            encode = super().encode

            def embed(group: Sequence[str]) -> Floats:
                rows = encode(_batches(group), task_metadata=task_metadata, **options)
                return np.asarray(rows, np.float32)

            return VectorCache(file, embed, name=name).embed(texts, label=task_metadata.name)

    wrapper = Cached(loaded)
    meta = wrapper.mteb_model_meta
    update: dict[str, Any] = {"loader": None}
    if is_folder:
        update |= {"name": f"local/{folder.resolve().name}", "revision": _digest(folder)}
    else:
        update |= {"name": hub_name, "revision": meta.revision or "main"}
    wrapper.mteb_model_meta = meta.model_copy(update=update)
    vectors = cache and cache / _file_name(wrapper.mteb_model_meta)
    return wrapper


def _batches(texts: Sequence[str]) -> Any:
    """Texts as mteb hands them to a model."""
    from datasets import Dataset
    from torch.utils.data import DataLoader

    return DataLoader(Dataset.from_dict({"text": list(texts)}), batch_size=BATCH_TEXTS)


def _require_on_hub(name: str, hub_name: str) -> None:
    """Refuse at once a model that the loader would look for until its retries are used up."""
    from dewey_embed.eval.hub import why_no_model

    if reason := why_no_model(hub_name):
        raise _no_sentence_transformer(name, reason)


def _no_sentence_transformer(name: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: cannot be loaded as a Sentence Transformers model ({reason}); give a folder with "
        "modules.json, or a Hugging Face id that is in the cache or can be reached"
    )


def _open_endpoint(address: str, device: str | None, cache: Path | None) -> EncoderProtocol:
    """The model behind `URL#MODEL`, called as `dewey teach` calls it: retried, vectors checked.

    mteb's own client first requests `/v1/models` without a key, which OpenAI refuses. The key is
    read from OPENAI_API_KEY.
    """
    from mteb.models.model_meta import ModelMeta

    from dewey_embed.eval.adapters import TeacherModel
    from dewey_embed.train.recipe import EndpointTeacher
    from dewey_embed.train.teachers.endpoint import RemoteTeacher

    url, _, model = address.partition("#")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not model:
        raise ConfigError(
            f"the endpoint {address!r} does not have the form openai:URL#MODEL, "
            "such as openai:http://localhost:8000/v1#BAAI/bge-m3"
        )
    teacher = RemoteTeacher(
        EndpointTeacher(kind="endpoint", url=url, model=model, max_tokens=ENDPOINT_TOKENS)
    )
    meta = ModelMeta.create_empty(
        {
            "name": model if "/" in model else f"{parts.hostname}/{model}",
            "revision": hashlib.sha256(url.encode()).hexdigest()[:16],
            "embed_dim": teacher.dim,
            "framework": ["API"],
            "similarity_fn_name": "cosine",
        }
    )
    file = cache / f"{_file_name(meta)}.sqlite" if cache is not None else None
    return TeacherModel(teacher, meta, file)


def _file_name(meta: ModelMeta) -> str:
    return f"{meta.model_name_as_path()}-{meta.revision}"


def _digest(folder: Path) -> str:
    """16 hex digits that change with the bytes of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(sha256(path))
    return digest.hexdigest()[:16]


class Peer(NamedTuple):
    """A kind of peer: how its names are written, and how one opens.

    `open` takes what follows the prefix, or the name if there is none; a device; and a folder for
    vectors.
    """

    usage: str
    open: Callable[[str, str | None, Path | None], MTEBModels]


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "bm25": Peer("bm25", _open_bm25),
        "minilm": Peer("minilm", _open_minilm),
        "minilm-windows": Peer("minilm-windows", _open_minilm),
        "minilm-chunks": Peer("minilm-chunks", _open_minilm),
        ST: Peer("st:MODEL", _open_sentence_transformer),
        OPENAI: Peer("openai:URL#MODEL", _open_endpoint),
    }
)
"""Kinds of peers, by name or by the prefix of their names."""
