"""`Dewey`: texts in, a vector for each document and one for each of its chunks out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from dewey_embed import scoring
from dewey_embed.chunking import (
    ChunkedText,
    chunk_texts,
    document_request,
    fit_texts,
    pool_spans,
    ranges_of,
    texts_of,
    titles_of,
)
from dewey_embed.config import CHUNK_TOKENS, DeweyConfig, EncodeOptions
from dewey_embed.errors import CheckpointError, ConfigError, InputError
from dewey_embed.files import cached_sha256
from dewey_embed.model.checkpoint import build_model
from dewey_embed.model.device import Dtype, sizes_of
from dewey_embed.model.dewey import DeweyModel, placed
from dewey_embed.model.export import pooling_difference, write_model, write_tokenizer_files
from dewey_embed.model.folder import atomic_model_folder, expanded, locate_model, read_json
from dewey_embed.model.inference import Embedded, Request, embed
from dewey_embed.model.int8 import is_int8
from dewey_embed.pretrained import read_pretrained
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.quantization import to_precision, truncate
from dewey_embed.single_vectors import SingleVector
from dewey_embed.text.special_tokens import named_tokens
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.types import (
    CharSpans,
    Document,
    DocumentVectors,
    Floats,
    Overflow,
    Precision,
    Rows,
    SimilarityMode,
    Splitter,
    WindowCuts,
)

PROBE = "moths eat wool"
"""A text whose vectors every model can make."""


class ReadingOptions(TypedDict, total=False):
    """Options of `Dewey.encode_document` that say what is read of texts, and what comes back."""

    chunk_tokens: int | Sequence[int]
    chunk_overlap: int | Sequence[int] | None
    splitter: Splitter
    spans: CharSpans | Sequence[CharSpans] | None
    overflow: Overflow
    window: int | None
    window_cuts: WindowCuts
    titles: str | Iterable[str] | None
    prompt_name: str | None
    prompt: str | None
    precision: Precision


class DocumentOptions(ReadingOptions, total=False):
    """Options of `Dewey.encode_document`, which explains them."""

    batch_tokens: int | None
    keep_states: bool
    progress: bool | Advance


@dataclass(frozen=True, slots=True)
class PreparedTexts:
    """Texts in tokens and spans, ready for the model: `requests` and the ids to `skip`.

    `documents` makes the texts' `DocumentVectors` of what the model gave for the requests.
    """

    requests: list[Request]
    skip: int
    documents: Callable[[Sequence[Embedded]], list[DocumentVectors]]

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads of them."""
        return sum(request.num_read for request in self.requests)


def joined(several: Sequence[PreparedTexts]) -> PreparedTexts:
    """Texts that were prepared with the same options, one after the other, as one."""
    ends = np.cumsum([0, *(len(each.requests) for each in several)]).tolist()

    def documents(embedded: Sequence[Embedded]) -> list[DocumentVectors]:
        return [
            document
            for each, start, end in zip(several, ends[:-1], ends[1:], strict=True)
            for document in each.documents(embedded[start:end])
        ]

    requests = [request for each in several for request in each.requests]
    return PreparedTexts(requests, several[0].skip, documents)


class Dewey:
    """A model with its tokenizer: encodes queries and documents, and compares them.

    Load one with `Dewey.load`. Names follow Sentence Transformers where it has one. Threads may
    share it.

    >>> model = Dewey.load()
    >>> documents = model.encode_document(["The tenant pays the rent.", "Ships carry timber."])
    >>> query = model.encode_query("who pays for the flat?")
    >>> int(model.similarity(query, documents).argmax())
    0
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
        for a CPU (docs/performance.md says what it costs in accuracy). `single_vector` and
        `max_tokens` override the model's own: `"cls"`, `"mean"`, `"cls_add_mean"`, or `"topics"`,
        the mean with up to four `DocumentVectors.vectors` beside it. `truncate_dim` is the number
        of dimensions to keep.
        `compile_layers` lets torch compile what layers do token by token, in the first pass. That
        takes a minute and helps with many short texts on a GPU; a CPU has Dewey's own kernels.

        >>> Dewey.load(truncate_dim=128).embedding_dim
        128

        Raises:
            CheckpointError: the model cannot be found, or its folder is damaged or foreign.
            ConfigError: an option has an impossible value.

        """
        name, folder = locate_model(model)
        checkpoint, tokenizer = read_pretrained(folder)
        config = checkpoint.config.override(single_vector=single_vector, max_tokens=max_tokens)
        dim = config.kept_dimensions(truncate_dim)
        built = build_model(replace(checkpoint, config=config))
        built = placed(built, device=device, dtype=dtype, compile_layers=compile_layers)
        return cls(built, tokenizer, name=name, folder=folder, truncate_dim=dim)

    @overload  # a string is an iterable of strings, too
    def encode_document(  # type: ignore[overload-overlap]
        self, texts: str | Document, **options: Unpack[DocumentOptions]
    ) -> DocumentVectors: ...
    @overload
    def encode_document(
        self, texts: Iterable[str | Document], **options: Unpack[DocumentOptions]
    ) -> list[DocumentVectors]: ...

    def encode_document(
        self,
        texts: str | Document | Iterable[str | Document],
        *,
        chunk_tokens: int | Sequence[int] = CHUNK_TOKENS,
        chunk_overlap: int | Sequence[int] | None = None,
        splitter: Splitter = "tokens",
        spans: CharSpans | Sequence[CharSpans] | None = None,
        overflow: Overflow = "windows",
        window: int | None = None,
        window_cuts: WindowCuts = "even",
        titles: str | Iterable[str] | None = None,
        prompt_name: str | None = "document",
        prompt: str | None = None,
        batch_tokens: int | None = None,
        precision: Precision = "float32",
        keep_states: bool = False,
        progress: bool | Advance = False,
    ) -> DocumentVectors | list[DocumentVectors]:
        """A `DocumentVectors` for each text, in order: its vector and one for each chunk.

        A `Document` stands for its text, and its headings, slides and rows begin sentences; one
        text or `Document` alone gives one `DocumentVectors`.

        - `chunk_tokens`, `chunk_overlap`: sizes in tokens; several sizes give several
          granularities from the same pass. The default overlap is a quarter of the size.
        - `splitter`: `"tokens"`, `"recursive"`, `"words"`, `"sentences"` (as many whole ones as
          fit), `"sentence"` (each alone), or a function from a text to ranges of its characters.
        - `spans`: ranges of characters to embed in place of a splitter's chunks: for one text its
          ranges, for several texts a list of ranges each.
        - `overflow`: how to read a text longer than the model takes: in overlapping `"windows"`,
          without its end (`"truncate"`), or not at all (`"error"`). The result says which.
        - `window`: the most tokens read at once; a longer text is read in overlapping windows,
          faster and with less context, though it would fit, and `overflow` of the result is still
          None. The default is the model's maximum, and 8,192 with `single_vector="topics"`.
        - `window_cuts`: where windows begin: at `"even"` distances, or where the text's `"content"`
          says, so that most are the same after an edit; `Index` encodes only those that are not.
        - `titles`: what is read above each text, and above each of its windows: chunks then know
          whose they are. It is no part of what they pool, and of the document's vector only where
          the model's prompt is. Of a title at most 64 tokens are read, and at most a quarter of a
          window; a warning counts those that are cut. A `Document`'s own title is read only where
          it is given here, too: it may be a file name.
        - `prompt_name`, `prompt`: one of the model's prompts, or a text in its place.
        - `batch_tokens`: tokens of one forward pass; longer texts have a pass of their own.
        - `precision`: `"float32"`, `"float16"`, `"int8"` or `"binary"` vectors.
        - `keep_states`: keep what `DocumentVectors.pool` needs; costs the hidden states' memory.
        - `progress`: a bar on standard error, or a function called with numbers of tokens.

        A blank text gets its vector from CLS alone, no chunks, and a warning.

        >>> text = "The tenant pays the rent. The owner pays for the roof."
        >>> document = Dewey.load().encode_document(text, spans=[(0, 25), (26, 54)])
        >>> [text[span.char_start : span.char_end] for span in document.spans]
        ['The tenant pays the rent.', 'The owner pays for the roof.']
        >>> document.vector.shape, document.chunks.shape
        ((384,), (2, 384))

        Raises:
            TypeError: a text or a title is not a string; names its position.
            TextTooLongError: a text is longer than the model takes, with `overflow="error"`.
            SpanError: a range lies outside its text.
            InputError: a text's vectors are not finite, or it has no token at all.
            ConfigError: an option has an impossible value, or there are titles or spans for another
                number of texts.

        """
        prepared = self._prepared(
            texts, chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap, splitter=splitter,
            spans=spans, overflow=overflow, window=window, window_cuts=window_cuts, titles=titles,
            prompt_name=prompt_name, prompt=prompt, precision=precision,
        )  # fmt: skip
        documents = self.encode_prepared(
            prepared, batch_tokens=batch_tokens, keep_states=keep_states, progress=progress
        )
        return documents[0] if isinstance(texts, str | Document) else documents

    def prepare(
        self, texts: Iterable[str | Document], **options: Unpack[ReadingOptions]
    ) -> PreparedTexts:
        """What `encode_document` does before the forward pass, for servers that join texts.

        >>> prepared = Dewey.load().prepare(["The tenant pays the rent."], splitter="sentence")
        >>> len(prepared.requests[0].tokens)
        6

        Raises:
            TypeError: as `encode_document`.
            TextTooLongError: as `encode_document`.
            SpanError: as `encode_document`.
            InputError: a text has no token at all.
            ConfigError: an option has an impossible value.

        """
        return self._prepared(texts, **options)

    def encode_prepared(
        self,
        texts: PreparedTexts,
        *,
        batch_tokens: int | None = None,
        keep_states: bool = False,
        progress: bool | Advance = False,
    ) -> list[DocumentVectors]:
        """What `encode_document` gives for the texts, by the forward passes that are left to do.

        >>> model = Dewey.load()
        >>> model.encode_prepared(model.prepare(["The tenant pays the rent."]))
        [DocumentVectors(1 chunk, width 384, 6 tokens, overflow=None)]

        Raises:
            InputError: a text's vectors are not finite.
            ConfigError: an option has an impossible value.

        """
        embedded = self._sound(
            texts.requests, texts.skip,
            batch_tokens=batch_tokens, progress=progress, keep_states=keep_states,
        )  # fmt: skip
        return texts.documents(embedded)

    def encode_sound(
        self, texts: PreparedTexts, *, progress: bool | Advance = False
    ) -> list[DocumentVectors | str]:
        """What `encode_prepared` gives, with the reason in place of vectors that are not sound.

        So that such a text costs its own vectors, and not those of others.

        >>> model = Dewey.load()
        >>> model.encode_sound(model.prepare(["The tenant pays the rent."]))
        [DocumentVectors(1 chunk, width 384, 6 tokens, overflow=None)]

        Raises:
            CheckpointError: those of a short text of plain words are not sound, either.

        """
        embedded = self._embed(texts.requests, texts.skip, batch_tokens=None, progress=progress)
        if any(each.fault is not None for each in embedded):
            self._require_sound_probe()
        with np.errstate(invalid="ignore"):  # of those that are not finite, at a precision
            documents = texts.documents(embedded)
        return [
            own if each.fault is None else each.fault
            for own, each in zip(documents, embedded, strict=True)
        ]

    def _require_sound_probe(self) -> None:
        """Refuse to go on where the model gives no text sound vectors."""
        probe = self.prepare([PROBE])
        [embedded] = self._embed(probe.requests, probe.skip, batch_tokens=None, progress=False)
        if embedded.fault is not None:
            raise CheckpointError(
                f"{self.name}, even for the text {PROBE!r}: {embedded.fault}; {self._remedy}"
            )

    def _prepared(
        self,
        texts: str | Document | Iterable[str | Document],
        *,
        chunk_tokens: int | Sequence[int] = CHUNK_TOKENS,
        chunk_overlap: int | Sequence[int] | None = None,
        splitter: Splitter = "tokens",
        spans: CharSpans | Sequence[CharSpans] | None = None,
        overflow: Overflow = "windows",
        window: int | None = None,
        window_cuts: WindowCuts = "even",
        titles: str | Iterable[str] | None = None,
        prompt_name: str | None = "document",
        prompt: str | None = None,
        precision: Precision = "float32",
    ) -> PreparedTexts:
        """The texts in tokens and spans."""
        many, landmarks, single = texts_of(texts)
        options = EncodeOptions.of(
            chunk_tokens, chunk_overlap,
            splitter=splitter, overflow=overflow, precision=precision,
        )  # fmt: skip
        ranges = ranges_of(spans, len(many), single=single, splitter=splitter)
        prompt = self._prompt(prompt_name, prompt)
        fitted = fit_texts(
            self.tokenizer, self.config, many,
            prompt=prompt, overflow=overflow, window=window,
            titles=titles_of(titles, len(many), single=single), depth=2,
        )  # fmt: skip
        chunked = chunk_texts(fitted, options, ranges, landmarks, window_cuts)
        return PreparedTexts(
            [each.request for each in chunked],
            self._skip(prompt),
            partial(self._documents, chunked, precision),
        )

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
        """Unit vectors (Q, D) of queries; (D,) of a single string.

        >>> Dewey.load().encode_query(["who pays the rent?", "who mends the roof?"]).shape
        (2, 384)

        Raises:
            TypeError: a text is not a string.
            TextTooLongError: a query is longer than the model takes.

        """
        return self.encode(
            texts, prompt_name=prompt_name, prompt=prompt, overflow="error",
            batch_tokens=batch_tokens, precision=precision, progress=progress,
        )  # fmt: skip

    def encode(
        self,
        texts: str | Document | Iterable[str | Document],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        overflow: Overflow = "windows",
        batch_tokens: int | None = None,
        precision: Precision = "float32",
        progress: bool | Advance = False,
    ) -> NDArray[Any]:
        """Unit vectors (N, D) of texts, one each and no chunks; (D,) of a single string.

        Texts have the model's default prompt, if it has one, unless another is given.

        >>> Dewey.load().encode("The tenant pays the rent.", precision="int8").dtype
        dtype('int8')

        Raises:
            TypeError: a text is not a string.
            TextTooLongError: a text is longer than the model takes, with `overflow="error"`.
            InputError: a text's vector is not finite, or it has no token at all.
            ConfigError: an option has an impossible value.

        """
        many, _, single = texts_of(texts)
        EncodeOptions.parse({"overflow": overflow, "precision": precision}, source="encode options")
        if prompt_name is None and prompt is None:
            prompt_name = self.config.default_prompt_name
        prompt = self._prompt(prompt_name, prompt)
        fitted = fit_texts(self.tokenizer, self.config, many, prompt=prompt, overflow=overflow)
        requests = [document_request(each) for each in fitted]
        embedded = self._sound(
            requests, self._skip(prompt), batch_tokens=batch_tokens, progress=progress
        )
        rows = np.array([each.vector for each in embedded], np.float32)
        vectors = self._stored(rows.reshape(len(many), self.config.embedding_dim), precision)
        return vectors[0] if single else vectors

    def similarity(
        self,
        queries: NDArray[Any],
        documents: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any],
        *,
        mode: SimilarityMode = "multi",
    ) -> Floats:
        """Scores (Q, N) of queries (Q, D) with documents, at most 1.

        `mode="single"` is the cosine with the document's vector, or with the nearest of its
        `vectors` where it has them; `mode="multi"` three quarters the best chunk's cosine and one
        quarter the document vector's; the latter alone where there is no chunk. Vectors of any
        precision compare; an array (N, D) is compared row by row, and one `DocumentVectors` is a
        list of one.
        Source of `multi`: arXiv 2503.20376 §3, where it is the best of all vectors, those of chunks
        and the document's; the weights are ours.

        >>> model = Dewey.load()
        >>> documents = model.encode_document(["The tenant pays the rent.", "Ships carry timber."])
        >>> model.similarity(model.encode_query(["who pays for the flat?"]), documents).shape
        (1, 2)

        Raises:
            ConfigError: an unknown mode, or vectors of another width than the model's.
            InputError: a value that is NaN or infinite.

        """
        return scoring.similarity(queries, documents, self.embedding_dim, mode=mode)

    def nearest(
        self,
        queries: NDArray[Any],
        documents: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any],
        k: int = 10,
        *,
        mode: SimilarityMode = "multi",
        rescore: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any] | None = None,
        rescore_multiplier: int = 4,
    ) -> tuple[Rows, Floats]:
        """Rows (Q, k) of the documents nearest to queries (Q, D), best first, and scores (Q, k).

        Scores are those of `similarity`. `rescore` are the same documents at another precision:
        the best `k` times `rescore_multiplier` by `documents` are scored again by it. So vectors
        in bits, which memory holds, find candidates, and int8 ones on a disk order them: of an
        array, which may be mapped from a file, only the candidates' rows are read.

        >>> model = Dewey.load()
        >>> texts = ["The tenant pays the rent.", "Ships carry timber.", "The roof leaks."]
        >>> bits, exact = (model.encode(texts, precision=each) for each in ("binary", "int8"))
        >>> query = model.encode_query("who pays for the flat?")
        >>> rows, scores = model.nearest(query, bits, k=1, rescore=exact)
        >>> rows
        array([[0]])

        Raises:
            ConfigError: `k` or `rescore_multiplier` is below 1, an unknown mode, or vectors of
                another width than the model's.
            InputError: a value that is NaN or infinite, or `rescore` of another length.

        """
        return scoring.nearest(
            queries, documents, self.embedding_dim,
            k=k, mode=mode, rescore=rescore, rescore_multiplier=rescore_multiplier,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write a model folder to `path` that plain Sentence Transformers loads, too.

        A model loaded with `single_vector="cls"`, or from a Sentence Transformers folder, gives the
        same single vectors there. Dewey's own mean and sum differ, because the mean there counts
        CLS and SEP: a warning and the folder say so. In an existing folder only the model's files
        are replaced.

        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Dewey.load(single_vector="cls").save(folder)
        ...     Dewey.load(folder).encode("The tenant pays the rent.").shape
        (384,)

        Raises:
            ConfigError: the weights became int8 at load, and are no longer the model's own.
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
        """The model's settings, with those overridden at load."""
        return self.model.config

    @property
    def embedding_dim(self) -> int:
        """Width D of the vectors."""
        return self.truncate_dim or self.config.embedding_dim

    def get_embedding_dimension(self) -> int:
        """Width D of the vectors, under Sentence Transformers' name."""
        return self.embedding_dim

    @property
    def teacher_axes(self) -> Floats | None:
        """The (T, D) axes of the vectors in the space of the model's teacher, of T dimensions.

        `vectors @ model.teacher_axes.T` are comparable with the teacher's own vectors, and
        `teacher_vectors @ model.teacher_axes` with the model's. None where the two are comparable
        as they are, or nothing is known of a teacher. `dewey rotate` makes axes.

        >>> axes = Dewey.load(truncate_dim=128).teacher_axes
        >>> axes is None or axes.shape == (384, 128)
        True
        """
        axes = self.model.teacher_axes
        return None if axes is None else axes[:, : self.embedding_dim]

    @property
    def max_tokens(self) -> int:
        """The largest number of tokens in one pass, with CLS, the prompt and SEP."""
        return self.config.max_tokens

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name; `query` and `document` precede texts of that kind."""
        return self.config.prompts

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.model.parameters()).dtype

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the weights, the settings or the tokenizer.

        Hashes of large files are kept in the user's cache until the files change.
        """
        config = self.config.model_dump_json(exclude=self.config.unused())
        digest = hashlib.sha256(config.encode())
        digest.update(str(self.truncate_dim).encode())
        for path in sorted((*self.folder.rglob("*.safetensors"), self._tokenizer_file)):
            digest.update(cached_sha256(path))
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return (
            f"Dewey({self.name!r}, embedding_dim={self.embedding_dim}, "
            f"max_tokens={self.max_tokens}, device={str(self.device)!r}, dtype={self.dtype})"
        )

    @property
    def _tokenizer_file(self) -> Path:
        return self.tokenizer.path or self.folder / "tokenizer.json"

    def _prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        """The given prompt, or the model's of that name."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"prompt is {type(prompt).__name__}, not str")
            return prompt
        if prompt_name is None:
            return ""
        if prompt_name not in self.prompts:
            raise ConfigError(
                f"prompt_name {prompt_name!r} is unknown; the model has {sorted(self.prompts)}"
            )
        return self.prompts[prompt_name]

    def _skip(self, prompt: str) -> int:
        """Number of ids of a prompt that the document's vector leaves out."""
        if not prompt or self.config.pooled_over != "after_prompt":
            return 0
        return self.tokenizer.prompt_length(prompt, self._named_tokens, self.max_tokens)

    @cached_property
    def _named_tokens(self) -> set[str]:
        path = self._tokenizer_file.with_name("tokenizer_config.json")
        return named_tokens(read_json(path, missing_ok=True))

    def _sound(
        self,
        requests: Sequence[Request],
        skip: int,
        *,
        batch_tokens: int | None,
        progress: bool | Advance,
        keep_states: bool = False,
    ) -> list[Embedded]:
        """The requests' vectors, all of them sound."""
        embedded = self._embed(
            requests, skip, batch_tokens=batch_tokens, progress=progress, keep_states=keep_states
        )
        faults = [position for position, each in enumerate(embedded) if each.fault is not None]
        if faults:
            first, others = faults[0], len(faults) - 1
            share = f" (and {others:,} more of {len(embedded):,})" if others else ""
            raise InputError(f"text {first}{share}: {embedded[first].fault}; {self._remedy}")
        return embedded

    @property
    def _remedy(self) -> str:
        """What to do where vectors are not sound."""
        again = "fetch the model's files again"
        return again if self.dtype is torch.float32 else f'load it with dtype="float32", or {again}'

    def _embed(
        self,
        requests: Sequence[Request],
        skip: int,
        *,
        batch_tokens: int | None,
        progress: bool | Advance,
        keep_states: bool = False,
    ) -> list[Embedded]:
        """The requests' vectors."""
        if batch_tokens is not None and (not isinstance(batch_tokens, int) or batch_tokens < 1):
            raise ConfigError(f"batch_tokens is {batch_tokens!r}, need a whole number from 1 on")
        if not requests:
            return []
        total = sum(request.num_read for request in requests)
        with progress_bar("encoding", total, "tokens", show=progress is True) as bar:
            return self._run(
                requests, skip,
                batch_tokens=batch_tokens or sizes_of(self.device).batch_tokens,
                keep_states=keep_states,
                on_tokens=progress if callable(progress) else bar,
            )  # fmt: skip

    def _run(
        self,
        requests: Sequence[Request],
        skip: int,
        *,
        batch_tokens: int,
        keep_states: bool,
        on_tokens: Advance,
    ) -> list[Embedded]:
        """The requests' vectors, by forward passes; a server puts them into a queue."""
        return embed(
            self.model, requests, skip=skip, single_vector=self.config.single_vector,
            batch_tokens=batch_tokens, keep_states=keep_states, on_tokens=on_tokens,
        )  # fmt: skip

    def _documents(
        self, chunked: Sequence[ChunkedText], precision: Precision, embedded: Sequence[Embedded]
    ) -> list[DocumentVectors]:
        """The vectors of texts with their spans."""
        return [
            DocumentVectors(
                vector=self._stored(vectors.vector, precision),
                chunks=self._stored(vectors.chunks, precision),
                spans=each.spans,
                num_tokens=each.fitted.num_tokens,
                used_tokens=len(each.fitted.tokens),
                overflow=each.fitted.overflow,
                granularity=each.granularity,
                norms=self._kept_norms(vectors),
                windows=vectors.windows,
                vectors=None
                if vectors.vectors is None
                else self._stored(vectors.vectors, precision),
                states=None
                if (kept := vectors.states) is None
                else partial(pool_spans, self.model, each.fitted, kept, self.truncate_dim),
            )
            for each, vectors in zip(chunked, embedded, strict=True)
        ]

    def _kept_norms(self, vectors: Embedded) -> Floats:
        """Lengths (C,) of the chunks' vectors in the kept dimensions, before they were unit."""
        kept = np.linalg.norm(vectors.chunks[:, : self.truncate_dim], axis=1)
        norms: Floats = (vectors.norms * kept).astype(np.float32)
        return norms

    def _stored(self, vectors: Floats, precision: Precision) -> NDArray[Any]:
        """Vectors in the kept dimensions, at a precision."""
        return to_precision(truncate(vectors, self.truncate_dim), precision)
