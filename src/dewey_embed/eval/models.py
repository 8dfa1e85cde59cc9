"""Names of models on the command line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args
from urllib.parse import urlsplit

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.eval.adapters import DeweySearch
from dewey_embed.eval.model_meta import OWNER
from dewey_embed.eval.vector_cache import finite_rows
from dewey_embed.index.ranking import Mode

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.models.models_protocols import EncoderProtocol, MTEBModels, SearchProtocol

BM25_K1, BM25_B = 0.9, 0.4
BM25_STEMMER = "english"
"""Snowball's English stemmer, of PyStemmer: the usual one of BM25 baselines."""

MINILM = {"minilm": "start", "minilm-windows": "windows", "minilm-chunks": "chunks"}
ST, OPENAI = "st:", "openai:"
ENDPOINT_TOKENS = 8192
"""For the recipe's sake only; texts are sent whole, and the server cuts them or refuses."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model in one mode: the name of its column, and how to open it for mteb.

    `name` is what it was asked for as. It is opened when the first task needs it.
    """

    name: str
    label: str
    open: Callable[[], MTEBModels]


def is_peer(name: str) -> bool:
    """Whether a name is a peer's, and so no Dewey model's."""
    return name == "bm25" or name in MINILM or name.startswith((ST, OPENAI))


def open_peer(name: str, *, device: str | None = None, cache: Path | None = None) -> MTEBModels:
    """The peer of a name, ready for `mteb.evaluate`.

    `cache` is a folder for its vectors, by model and text; without one they are kept in memory.

    Raises:
        ConfigError: the name is no peer's, or an endpoint's is not `openai:URL#MODEL`.
        CheckpointError: a Sentence Transformers model cannot be loaded.
        TeacherError: an endpoint cannot be reached, or does not answer with vectors.
        MissingDependencyError: a package is not installed.

    """
    if name == "bm25":
        return open_bm25()
    if name in MINILM:
        from dewey_embed.eval.adapters import open_minilm

        return open_minilm(MINILM[name], device=device, cache=cache)  # type: ignore[arg-type]
    if name.startswith(ST):
        return open_sentence_transformer(name.removeprefix(ST), device=device, cache=cache)
    if name.startswith(OPENAI):
        return open_endpoint(name.removeprefix(OPENAI), cache=cache)
    raise ConfigError(
        f"no peer {name!r}; peers: bm25, {', '.join(MINILM)}, st:MODEL, openai:URL#MODEL"
    )


def open_bm25() -> SearchProtocol:
    """BM25 for English, by mteb's class over bm25s: stop words left out, Snowball's stemmer."""
    import mteb
    from mteb.models.model_implementations.bm25 import BM25Search

    meta = mteb.get_model_meta("mteb/baseline-bm25s")
    told = f"k1-{BM25_K1}-b-{BM25_B}-{BM25_STEMMER}"
    # mteb drops words of nine documents in ten unless told not to.
    model: Any = BM25Search(tokenizer=bm25_words, freq_threshold=0, k1=BM25_K1, b=BM25_B)
    update = {"loader": None, "name": f"{OWNER}/bm25", "revision": told}
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


def open_sentence_transformer(
    model: str, *, device: str | None, cache: Path | None
) -> EncoderProtocol:
    """A Sentence Transformers model in mteb's own wrapper: a folder, or a Hugging Face id.

    A folder's revision is the digest of its files, so that a model trained on is another one.
    """
    from mteb.models.cache_wrappers import CachedEmbeddingWrapper
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    folder = Path(model).expanduser()
    local = folder.is_dir()
    try:
        loaded = SentenceTransformer(str(folder.resolve()) if local else model, device=device)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{model}: cannot be loaded as a Sentence Transformers model "
            f"({str(error).strip().splitlines()[0]}); give a folder with modules.json, or a "
            "Hugging Face id that is in the cache or can be reached"
        ) from None

    class Checked(SentenceTransformerEncoderWrapper):
        """mteb's wrapper, which lets no NaN through, into a cache or a score."""

        def encode(self, inputs: Any, **kwargs: Any) -> Any:
            """One finite vector for each text."""
            texts = [text for batch in inputs for text in batch["text"]]
            return finite_rows(super().encode(inputs, **kwargs), texts, model)

    wrapper = Checked(loaded)
    found = wrapper.mteb_model_meta
    update: dict[str, Any] = {"loader": None}
    if local:
        update |= {"name": f"local/{folder.resolve().name}", "revision": _digest(folder)}
    else:
        update["name"] = model if "/" in model else f"sentence-transformers/{model}"
        update["revision"] = found.revision or "main"
    wrapper.mteb_model_meta = found.model_copy(update=update)
    if cache is None:
        return wrapper
    folder = cache / _file_name(wrapper.mteb_model_meta)
    return cast("EncoderProtocol", CachedEmbeddingWrapper(wrapper, folder))


def open_endpoint(address: str, *, cache: Path | None) -> EncoderProtocol:
    """The model behind `URL#MODEL`, asked as `dewey teach` asks: retried, every answer checked.

    mteb's own client asks `/v1/models` without a key first, which OpenAI refuses. The key is read
    from OPENAI_API_KEY.
    """
    from mteb.models.model_meta import ModelMeta

    from dewey_embed.eval.adapters import TeacherModel
    from dewey_embed.train.teachers.endpoint import RemoteTeacher
    from dewey_embed.train.teachers.recipe import EndpointTeacher

    url, _, model = address.partition("#")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not model:
        raise ConfigError(
            f"the endpoint {address!r} is no openai:URL#MODEL, "
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
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


Modes = Literal["single", "multi", "hybrid", "all"]

INDEXES, VECTORS = "indexes", "vectors"
"""Folders of the cache: our indexes, the peers' vectors."""


def open_models(
    names: Sequence[str],
    *,
    mode: Modes = "all",
    cache_folder: Path,
    device: str | None = None,
    chunk_tokens: int | Sequence[int] = CHUNK_TOKENS,
    chunk_overlap: int | Sequence[int] | None = None,
    show: bool = False,
) -> list[EvaluatedModel]:
    """The models to measure, in the order of their names; a Dewey model once in each mode.

    A name is a peer's (`bm25`, `st:…`, `openai:…`, `minilm…`: see `peers.py`), or a Dewey model's:
    `mini`, a folder, a Hugging Face id. Models are loaded when they are first needed, and a Dewey
    model once for all of its modes.

    Raises:
        ConfigError: a name comes twice.

    """
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise ConfigError(
            f"asked to measure {', '.join(sorted(twice))} twice; name each model once"
        )
    modes: Sequence[Mode] = get_args(Mode) if mode == "all" else (mode,)
    found = []
    for name in names:
        if is_peer(name):
            peer = partial(open_peer, name, device=device, cache=cache_folder / VECTORS)
            found.append(EvaluatedModel(name=name, label=name, open=peer))
            continue
        load = cache(partial(Dewey.load, name, device=device))
        for each in sorted(modes, key=("single", "multi", "hybrid").index):

            def search(load: partial[Dewey] = load, each: Mode = each) -> MTEBModels:  # type: ignore[assignment]
                return DeweySearch(
                    load(),
                    cache_folder / INDEXES,
                    mode=each,
                    chunk_tokens=chunk_tokens,
                    chunk_overlap=chunk_overlap,
                    show=show,
                )

            found.append(EvaluatedModel(name=name, label=f"{Path(name).name} {each}", open=search))
    return found
