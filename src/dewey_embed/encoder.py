"""`Dewey`: texts in, a vector for each whole document and one for each of its chunks out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from dewey_embed import scoring
from dewey_embed.chunking import CharSpans, Chunked, TextStates, chunk_documents, is_splitter
from dewey_embed.config import CHUNK_TOKENS, DeweyConfig, EncodeOptions
from dewey_embed.errors import ConfigError, InputError
from dewey_embed.model.checkpoint import build_model
from dewey_embed.model.device import Dtype, sizes_of
from dewey_embed.model.dewey import DeweyModel, placed
from dewey_embed.model.export import pooling_difference, write_model, write_tokenizer_files
from dewey_embed.model.folder import atomic_model_folder, expanded, locate_model, read_json
from dewey_embed.model.inference import Embedded, embed
from dewey_embed.model.int8 import is_int8
from dewey_embed.pretrained import read_pretrained
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.quantization import to_precision, truncate
from dewey_embed.single_vectors import SingleVector
from dewey_embed.text.special_tokens import named_tokens
from dewey_embed.text.splitter import Splitter
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.types import (
    Document,
    DocumentVectors,
    Overflow,
    Precision,
    Tokens,
)

Floats = NDArray[np.float32]


class Dewey:
    """A model with its tokenizer: encodes queries and documents, and compares them.

    Make one with `Dewey.load`. Names follow Sentence Transformers where it has one.
    """

    def __init__(
        self,
        model: DeweyModel,
        tokenizer: Tokenizer,
        *,
        name: str,
        folder: Path,
        truncate_dim: int | None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.folder = folder
        self.truncate_dim = truncate_dim

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: Dtype = "auto",
        single_vector: SingleVector | None = None,
        truncate_dim: int | None = None,
        max_tokens: int | None = None,
        compile_layers: bool = False,
    ) -> Self:
        """A model ready to encode: the embedded default, one in a folder, or a Hugging Face id.

        `device` is CUDA where there is one, else the CPU. `dtype` `"auto"` is bfloat16 where the
        hardware is faster at it, else float32; `"int8"` is bfloat16 with layers' weights in int8,
        for a CPU (docs/performance.md: what it costs in accuracy). `single_vector` and `max_tokens`
        override the model's own; `truncate_dim` keeps the first so many dimensions of every vector.
        `compile_layers` has torch compile what layers do token by token, in the first pass: for
        many short texts on a GPU; it takes a minute, and on a CPU our kernels are used instead.

        Raises:
            CheckpointError: the model cannot be found, or its folder is damaged or foreign.
            ConfigError: an option has an impossible value.

        """
        name, folder = locate_model(model)
        checkpoint, config, tokenizer = read_pretrained(folder)
        config = config.override(single_vector=single_vector, max_tokens=max_tokens)
        dim = _kept_dimensions(truncate_dim, config)
        built = build_model(checkpoint)
        built.config = config
        built = placed(built, device=device, dtype=dtype, compile_layers=compile_layers)
        return cls(built, tokenizer, name=name, folder=folder, truncate_dim=dim)

    def save(self, path: str | Path) -> None:
        """Write a model folder to `path` that plain Sentence Transformers loads, too.

        A model loaded with `single_vector="cls"`, or from a Sentence Transformers folder, gives the
        same single vectors there. Our own mean and sum differ, for theirs counts CLS and SEP: a
        warning and the folder say so. In a folder that is there, only the model's files change.

        Raises:
            ConfigError: the weights were made int8 at load, and are no longer the model's own.
            CheckpointError: `path` is a file, holds something else, or cannot be written to.

        """
        if is_int8(self.model.backbone):
            raise ConfigError(
                "the model was loaded with dtype int8, which is not for keeping; "
                'load it with dtype="bfloat16" or "float32", then save it'
            )
        if (difference := pooling_difference(self.config)) is not None:
            warnings.warn(
                f"{path}: {difference} Load the model with "
                'single_vector="cls" before saving it for the same vectors in both',
                stacklevel=2,
            )
        with atomic_model_folder(expanded(Path(path))) as draft:
            write_model(self.model, draft)
            self.tokenizer.save(draft / "tokenizer.json")
            write_tokenizer_files(self._tokenizer_file.parent, draft, self.config)

    @property
    def config(self) -> DeweyConfig:
        """The model's settings, with what was overridden at load."""
        return self.model.config

    @property
    def embedding_dim(self) -> int:
        """Width D of the vectors."""
        return self.truncate_dim or self.config.embedding_dim

    def get_embedding_dimension(self) -> int:
        """Width D of the vectors, under Sentence Transformers' name."""
        return self.embedding_dim

    @property
    def max_tokens(self) -> int:
        """Most tokens of one pass: CLS, the prompt, the text and SEP."""
        return self.config.max_tokens

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name; `query` and `document` are put before those texts."""
        return self.config.prompts

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are computed in."""
        return next(self.model.parameters()).dtype

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the weights, the settings or the tokenizer."""
        config = self.config.model_dump_json(exclude=self.config.unused())
        digest = hashlib.sha256(config.encode())
        digest.update(str(self.truncate_dim).encode())
        for path in sorted((*self.folder.rglob("*.safetensors"), self._tokenizer_file)):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    @property
    def _tokenizer_file(self) -> Path:
        return self.tokenizer.path or self.folder / "tokenizer.json"

    @overload
    def encode_document(self, texts: str | Document, **options: Any) -> DocumentVectors: ...
    @overload
    def encode_document(
        self, texts: Iterable[str | Document], **options: Any
    ) -> list[DocumentVectors]: ...

    def encode_document(  # type: ignore[misc] # the overloads stand for all options at once
        self,
        texts: str | Document | Iterable[str | Document],
        *,
        chunk_tokens: int | Sequence[int] = CHUNK_TOKENS,
        chunk_overlap: int | Sequence[int] | None = None,
        splitter: Splitter | Sequence[CharSpans] = "tokens",
        overflow: Overflow = "windows",
        prompt_name: str | None = "document",
        prompt: str | None = None,
        batch_tokens: int | None = None,
        precision: Precision = "float32",
        keep_states: bool = False,
        progress: bool | Advance = False,
    ) -> DocumentVectors | list[DocumentVectors]:
        """A `DocumentVectors` for each text, in order: its vector and one for each chunk.

        A `Document` stands for its text; one text or `Document` alone gives one `DocumentVectors`.

        - `chunk_tokens`, `chunk_overlap`: sizes in tokens; several sizes give several
          granularities from the same pass. The overlap is a quarter of the size unless given.
        - `splitter`: `"tokens"`, `"recursive"`, `"words"`, a function from a text to ranges of its
          characters, or those ranges themselves, one list for each text.
        - `overflow`: what to do with a text longer than the model takes: read it in overlapping
          `"windows"`, `"truncate"` it, or raise an `"error"`. The result says which happened.
        - `keep_states`: keep what `DocumentVectors.pool` needs; costs the hidden states' memory.
        - `batch_tokens`: tokens of one forward pass; longer texts make one of their own.
        - `progress`: a bar on standard error, or a function told how many tokens are done.

        A blank text gets its vector from CLS alone, no chunks, and a warning.

        Raises:
            TypeError: a text is no string; its position is named.
            TextTooLongError: with `overflow="error"`; SpanError: ranges outside their text.
            InputError: a text's vectors are not finite, or it has no token to make one of.
            ConfigError: an option has an impossible value.

        """
        many, single = texts_of(texts)
        if single and not is_splitter(splitter):
            splitter = [cast(CharSpans, splitter)]
        options = EncodeOptions.of(
            chunk_tokens, chunk_overlap, overflow=overflow, precision=precision
        )
        prompt = self._prompt(prompt_name, prompt)
        chunked = chunk_documents(
            many, self._tokenize(many, prompt), splitter, options,
            max_tokens=self.max_tokens, num_special=sum(map(len, self.config.special_ids)),
            skip=self._skip(prompt),
        )  # fmt: skip
        embedded = self._embed(chunked, batch_tokens, progress, keep_states=keep_states)
        documents = [
            self._document(cut, vectors, precision)
            for cut, vectors in zip(chunked, embedded, strict=True)
        ]
        return documents[0] if single else documents

    def encode_query(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = "query",
        prompt: str | None = None,
        batch_tokens: int | None = None,
        precision: Precision = "float32",
        progress: bool | Advance = False,
    ) -> NDArray[Any]:
        """(Q, D), unit length: one vector for each query; (D,) for a single string.

        Raises:
            TypeError: a text is no string.
            TextTooLongError: a query is longer than the model takes.

        """
        return self.encode(
            texts, prompt_name=prompt_name, prompt=prompt, overflow="error",
            batch_tokens=batch_tokens, precision=precision, progress=progress,
        )  # fmt: skip

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        overflow: Overflow = "windows",
        batch_tokens: int | None = None,
        precision: Precision = "float32",
        progress: bool | Advance = False,
    ) -> NDArray[Any]:
        """(N, D), unit length: one vector for each text; (D,) for a single string.

        Without a prompt, unless the model names a default one.

        Raises:
            TypeError: a text is no string.
            TextTooLongError: with `overflow="error"`.
            InputError: a text's vector is not finite, or it has no token to make one of.

        """
        many, single = texts_of(texts)
        if prompt_name is None and prompt is None:
            prompt_name = self.config.default_prompt_name
        documents = self.encode_document(
            many, splitter=[[] for _ in many], overflow=overflow, prompt_name=prompt_name,
            prompt=prompt, batch_tokens=batch_tokens, precision=precision, progress=progress,
        )  # fmt: skip
        if single:
            return documents[0].vector
        if not documents:
            return to_precision(np.empty((0, self.embedding_dim), np.float32), precision)
        return np.stack([document.vector for document in documents])

    def similarity(
        self,
        queries: NDArray[Any],
        documents: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any],
        *,
        mode: Literal["multi", "single"] = "multi",
    ) -> Floats:
        """(Q, N) scores of queries (Q, D) with documents, at most 1.

        `mode="single"` is the cosine with the document's own vector, `mode="multi"` three quarters
        the best chunk's cosine and one quarter the document's; the document's alone where it has
        no chunk. Vectors of any precision compare; an array (N, D) is compared row by row, and one
        `DocumentVectors` is a list of one.
        Source of `multi`: arXiv 2503.20376 §3, where it is the best of all rows, chunks and whole;
        the share of the whole is ours.

        Raises:
            ConfigError: an unknown mode, or vectors of another width than the model's.
            InputError: a value that is NaN or infinite.

        """
        compared = comparable(documents)
        queries = np.asarray(queries)
        _require_finite("queries", queries)
        if isinstance(compared, np.ndarray):
            _require_finite("documents", compared)
        else:
            for position, document in enumerate(compared):
                _require_finite(f"document {position}", document.vector, document.chunks)
        return scoring.similarity(queries, compared, self.embedding_dim, mode=mode)

    def __repr__(self) -> str:
        return (
            f"Dewey({self.name!r}, embedding_dim={self.embedding_dim}, "
            f"max_tokens={self.max_tokens}, device={str(self.device)!r}, dtype={self.dtype})"
        )

    def _prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        """The prompt that is given, or the model's of that name."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"prompt is {type(prompt).__name__}, not str")
            return prompt
        if prompt_name is not None and prompt_name not in self.prompts:
            raise ConfigError(
                f"prompt_name {prompt_name!r} is unknown; the model has {sorted(self.prompts)}"
            )
        return self.prompts[prompt_name] if prompt_name is not None else ""

    def _skip(self, prompt: str) -> int:
        """Ids of a prompt that take no part in the document's vector."""
        if not prompt or self.config.pooled_over != "after_prompt":
            return 0
        return self.tokenizer.prompt_length(prompt, self._named_tokens, self.max_tokens)

    @cached_property
    def _named_tokens(self) -> set[str]:
        path = self._tokenizer_file.with_name("tokenizer_config.json")
        return named_tokens(read_json(path, missing_ok=True))

    def _tokenize(self, texts: Sequence[str], prompt: str) -> list[Tokens]:
        tokens = self.tokenizer.encode(texts, prompt=prompt)
        blank = [position for position, each in enumerate(tokens) if not len(each)]
        if blank:
            own = self.config.pooled_over == "text"
            alone = "CLS" if own else "special tokens and the prompt"
            warnings.warn(
                f"{len(blank)} of {len(texts)} texts hold no token (positions {blank[:8]}): "
                f"their vectors come from {alone} alone, without chunks",
                stacklevel=3,
            )
        return tokens

    def _embed(
        self,
        chunked: Sequence[Chunked],
        batch_tokens: int | None,
        progress: bool | Advance,
        *,
        keep_states: bool,
    ) -> list[Embedded]:
        if batch_tokens is not None and (not isinstance(batch_tokens, int) or batch_tokens < 1):
            raise ConfigError(f"batch_tokens is {batch_tokens!r}, need a whole number from 1 on")
        if not chunked:
            return []
        total = sum(int(np.diff(cut.request.windows).sum()) for cut in chunked)
        shown = progress_bar("encoding", total, "tokens", show=progress is True)
        with shown as bar:
            embedded = embed(
                self.model,
                [cut.request for cut in chunked],
                single_vector=self.config.single_vector,
                batch_tokens=batch_tokens or sizes_of(self.device).batch_tokens,
                keep_states=keep_states,
                on_tokens=progress if callable(progress) else bar,
            )
        for position, vectors in enumerate(embedded):
            if not (np.isfinite(vectors.vector).all() and np.isfinite(vectors.chunks).all()):
                raise InputError(
                    f"text {position}: its vectors hold values that are NaN or infinite; the "
                    f"model overflows in {str(self.dtype).removeprefix('torch.')}: load it with "
                    'dtype="float32", or fetch its files again'
                )
        return embedded

    def _document(self, cut: Chunked, vectors: Embedded, precision: Precision) -> DocumentVectors:
        kept = vectors.states
        return DocumentVectors(
            vector=to_precision(truncate(vectors.vector, self.truncate_dim), precision),
            chunks=to_precision(truncate(vectors.chunks, self.truncate_dim), precision),
            spans=cut.spans,
            num_tokens=cut.num_tokens,
            used_tokens=len(cut.request.tokens),
            overflow=cut.overflow,
            granularity=cut.granularity,
            states=TextStates(self.model, cut, kept, self.truncate_dim) if kept else None,
        )


def texts_of(texts: str | Document | Iterable[str | Document]) -> tuple[list[str], bool]:
    """The texts as a list, and whether there was one alone.

    Raises:
        TypeError: naming what is no text, by its position.

    """
    if isinstance(texts, str):
        return [texts], True
    if isinstance(texts, Document):
        return [texts.text], True
    if isinstance(texts, Mapping | Set | bytes | bytearray) or hasattr(texts, "columns"):
        raise TypeError(
            f"texts is a {type(texts).__name__}; pass a list of strings: of a dict "
            "list(texts.values()), of a table one column, of bytes their decoded text"
        )
    if not isinstance(texts, Iterable):
        raise TypeError(f"texts is {type(texts).__name__}; pass a string or a list of strings")
    many = [text.text if isinstance(text, Document) else text for text in texts]
    for position, text in enumerate(many):
        if not isinstance(text, str):
            raise TypeError(
                f"texts[{position}] is {type(text).__name__}, not str; decode or convert it first"
            )
    return many, False


def comparable(
    documents: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any],
) -> Sequence[DocumentVectors] | NDArray[Any]:
    """What `similarity` compares with: a list of documents, or an array of vectors."""
    if isinstance(documents, DocumentVectors):
        return [documents]
    if isinstance(documents, np.ndarray):
        return documents
    many = list(documents)
    if many and not any(isinstance(each, DocumentVectors) for each in many):
        return np.asarray(many)
    for position, each in enumerate(many):
        if not isinstance(each, DocumentVectors):
            raise TypeError(f"documents[{position}] is {type(each).__name__}, not DocumentVectors")
    return many


def _require_finite(name: str, *arrays: NDArray[Any]) -> None:
    """Refuse vectors with values that are no numbers."""
    for array in arrays:
        if not np.issubdtype(array.dtype, np.number):
            raise TypeError(f"{name}: vectors of dtype {array.dtype}, need numbers")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: the vectors hold values that are NaN or infinite")


def _kept_dimensions(truncate_dim: int | None, config: DeweyConfig) -> int | None:
    """How many dimensions are kept: as asked, or as the model itself says; None for all."""
    if truncate_dim is None:
        own = config.truncate_dim
        return own if own is not None and own < config.embedding_dim else None
    whole = isinstance(truncate_dim, int) and not isinstance(truncate_dim, bool)
    if not whole or not 0 < truncate_dim <= config.embedding_dim:
        raise ConfigError(
            f"truncate_dim is {truncate_dim!r}; vectors have {config.embedding_dim} dimensions"
        )
    return truncate_dim
