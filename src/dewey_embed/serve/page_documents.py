"""The page's own endpoints: open a document, follow the one pass over it, ask it.

Positions are counted as JavaScript counts a string: in units of UTF-16.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from fastapi import APIRouter, Request, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dewey_embed.index.settings import WINDOW
from dewey_embed.index.sync import LONGEST_SENTENCE
from dewey_embed.index.tables import storable, title_above, title_text
from dewey_embed.scoring import UNANSWERED
from dewey_embed.serve.errors import ApiError, api_error
from dewey_embed.serve.reading import GRANULARITIES, Reading, Shelf
from dewey_embed.serve.samples import SAMPLES
from dewey_embed.serve.server import in_thread, server_of
from dewey_embed.serve.uploads import file_name
from dewey_embed.text.locations import place_in_words
from dewey_embed.text.reader import EXTENSIONS, read_documents
from dewey_embed.text.sentences import headings_in
from dewey_embed.types import Document, Floats, Hit, Landmark, Location, Passage

router = APIRouter(prefix="/page", include_in_schema=False)

MAX_LISTED = 100
"""Documents of an index that are listed at once."""

POLL_S = 0.1
"""Seconds between two lines of progress."""

READ_ONCE = 7 / 8
"""The part of a window's tokens that no other window reads: `model/inference.py`."""


class TextBody(BaseModel):
    """A document that is given by its text, or by its place in an index or among the samples."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = None
    title: str = Field(default="", max_length=1000)
    sample: str | None = None
    index: str | None = None
    document_id: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(each is not None for each in (self.text, self.sample, self.index)) != 1:
            raise ValueError("give one of text, sample, and index with document_id")
        if (self.index is None) != (self.document_id is None):
            raise ValueError("index and document_id belong together")
        return self


class AskBody(BaseModel):
    """A query."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(max_length=10_000)


@router.get("/start")
def start(request: Request) -> JSONResponse:
    """What the first screen shows: the model, the indexes, the samples, what can be read."""
    server = server_of(request)
    return _json(
        {
            "model": Path(server.model.name).name,
            "max_tokens": server.settings.max_tokens,
            "max_mb": server.settings.max_body_mb,
            "extensions": EXTENSIONS,
            "granularities": list(GRANULARITIES),
            "indexes": [
                {"name": name, "num_documents": _size(index)}
                for name, index in server.indexes.items()
            ],
            "samples": [
                {"name": name, "title": sample.title, "about": sample.about}
                for name, sample in SAMPLES.items()
            ],
        }
    )


def _size(index: Any) -> int | None:
    """The number of an index's documents; `None` where it cannot be read."""
    try:
        return len(index)
    except Exception:  # the page names the index, and its list says what is wrong
        return None


@router.get("/indexes/{name}")
def list_index(request: Request, name: str, words: str = "") -> JSONResponse:
    """Documents of an index whose title or id holds the words."""
    indexes = server_of(request).indexes
    if name not in indexes:
        raise ApiError(404, "there is no such index here")
    wanted = words.casefold().split()
    fitting = (
        {"id": each.id, "title": each.title or each.id}
        for each in indexes[name].documents()
        if all(word in f"{each.title}\n{each.id}".casefold() for word in wanted)
    )
    listed = list(islice(fitting, MAX_LISTED + 1))
    return _json({"documents": listed[:MAX_LISTED], "more": len(listed) > MAX_LISTED})


@router.post("/files")
async def open_file(request: Request, file: UploadFile) -> StreamingResponse:
    """Open a file that was dropped on the page; the answer is its progress, a line of JSON each."""
    with tempfile.TemporaryDirectory(prefix="dewey-upload-") as folder:
        path = Path(folder, file_name(file.filename or "", otherwise="document"))
        with path.open("wb") as copy:
            while block := await file.read(1 << 20):
                await asyncio.to_thread(copy.write, block)
        document = await in_thread(server_of(request).readers, partial(_read, path))
    return _opening(request, document)


@router.post("/documents")
async def open_document(request: Request, body: TextBody) -> StreamingResponse:
    """Open a text, a sample or a document of an index; the answer is as for a file."""
    server = server_of(request)
    if body.text is not None:
        title = body.title.strip() or "Pasted text"
        document = Document(id="text", text=body.text, title=title)
    elif body.sample is not None:
        if body.sample not in SAMPLES:
            raise ApiError(404, "there is no such sample")
        document = await asyncio.to_thread(SAMPLES[body.sample].read)
    else:
        index = server.indexes.get(body.index or "")
        if index is None:
            raise ApiError(404, "there is no such index here")
        document = await asyncio.to_thread(index.document, body.document_id or "")
    if not document.text.strip():
        raise ApiError(400, "the text is blank; give one with at least one word")
    return _opening(request, document)


@router.get("/documents/{document_id}")
async def get_document(request: Request, document_id: str) -> JSONResponse:
    """An open document: its text, and where its sentences, headings and pages are."""
    reading = _shelf(request).get(document_id)
    return _json({"id": document_id, **await asyncio.to_thread(_described, reading)})


@router.delete("/documents/{document_id}")
async def close_document(request: Request, document_id: str) -> JSONResponse:
    """Let go of a document."""
    _shelf(request).remove(document_id)
    return _json({})


@router.post("/documents/{document_id}/ask")
async def ask(request: Request, document_id: str, body: AskBody) -> JSONResponse:
    """The passages that answer a query, and how relevant the text around each sentence is."""
    shelf, query = _shelf(request), " ".join(body.query.split())
    reading = shelf.get(document_id)
    if not query:
        raise ApiError(400, "the query is blank; ask with at least one word")
    vector = shelf.vector(document_id, query)
    if vector is None:
        [encoded] = await server_of(request).encode(request, [query], prompt_name="query")
        vector = encoded.vector
        shelf.keep_vector(document_id, query, vector)
    return _json(await asyncio.to_thread(_answer, reading, query, vector))


def _json(content: Any) -> JSONResponse:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


def _shelf(request: Request) -> Shelf:
    """The documents that are open on the pages of this server."""
    state = request.app.state
    if not hasattr(state, "shelf"):
        state.shelf = Shelf()
    shelf: Shelf = state.shelf
    return shelf


def _read(path: Path) -> Document:
    """The document in a file; several in one file become one, each under its title.

    Raises:
        ApiError: it cannot be read.

    """
    found = list(read_documents([path]))
    documents = [each for each in found if isinstance(each, Document)]
    if not documents:
        reason = found[0].reason if found and not isinstance(found[0], Document) else "empty"
        # An option of a command is no remedy here.
        raise ApiError(400, f"{path.name}: {reason.partition('; --')[0]}")
    if len(documents) > 1:
        documents = [_joined(documents, path.name)]
    # The title of a file without one is its name, as where files are indexed.
    return replace(documents[0], id=path.name, source=path.name, root="")


def _joined(documents: Sequence[Document], title: str) -> Document:
    """One document of several records of a file, each under a heading."""
    text, landmarks = "", []
    for document in documents:
        heading = " ".join(document.title.split())
        landmarks.append(Landmark(len(text), "heading", 1, heading))
        text += f"{heading}\n\n" if heading else ""
        landmarks += [
            each._replace(
                char=each.char + len(text),
                number=each.number + (each.kind == "heading" and each.number > 0),
            )
            for each in document.landmarks
        ]
        text += document.text.strip("\n") + "\n\n\n"
    return Document(id=title, title=title, text=text, landmarks=tuple(landmarks))


def _opening(request: Request, document: Document) -> StreamingResponse:
    """The answer that tells how far the pass over a document is."""
    return StreamingResponse(
        _progress(request, storable(document)),
        media_type="application/x-ndjson",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _Pass:
    """A pass over a document: how many of its tokens are done."""

    def __init__(self, total: int, window: int) -> None:
        self.total = total
        self._share = READ_ONCE if total > window else 1.0
        self._read = 0

    def __call__(self, num_tokens: int) -> None:
        """Count tokens that the model has read."""
        self._read += num_tokens

    @property
    def done(self) -> int:
        """Tokens of the document that are done."""
        return min(self.total, round(self._read * self._share))


async def _progress(request: Request, document: Document) -> AsyncIterator[str]:
    """Lines of JSON: the progress of a pass, then the document's id, or what went wrong."""
    try:
        async for state in _states(request, document):
            yield json.dumps(state) + "\n"
    except Exception as error:
        refusal = api_error(error)
        wait = (refusal.headers or {}).get("Retry-After")
        failed = {"state": "failed", "status": refusal.status, "error": refusal.message}
        yield json.dumps({**failed, "retry_after": wait}) + "\n"


async def _states(request: Request, document: Document) -> AsyncIterator[dict[str, Any]]:
    """What has become of a document, until it is ready.

    Raises:
        ApiError: it has more tokens than a request may have.

    """
    server = server_of(request)
    window = min(WINDOW, server.model.max_tokens)
    tokens = await asyncio.to_thread(server.model.tokenizer.encode, [document.text])
    progress = _Pass(len(tokens[0]), window)
    if progress.total > server.settings.max_tokens:
        raise ApiError(
            413,
            f"the document has {progress.total:,} tokens, the limit is "
            f"{server.settings.max_tokens:,}; split it, or start the server with a higher one",
        )
    task = asyncio.ensure_future(_encoded(request, document, window, progress))
    try:
        while not task.done():
            yield {
                "state": "encoding",
                "title": document.title,
                "done": progress.done,
                "total": progress.total,
            }
            await asyncio.wait([task], timeout=POLL_S)
        reading = await task
    finally:
        task.cancel()  # the reader has left
    yield {"state": "ready", "id": _shelf(request).put(reading)}


async def _encoded(request: Request, document: Document, window: int, progress: _Pass) -> Reading:
    """A document after the one pass over it, as an index encodes it."""
    server = server_of(request)
    # Its first import takes seconds: that of what keeps the vectors, while the model reads.
    imported = asyncio.ensure_future(asyncio.to_thread(import_module, "lancedb"))
    title = title_text(document)
    [vectors] = await server.encode(
        request, [document],
        titles=[title_above(document)] if server.model.tokenizer.marks_titles else None,
        splitter="sentence", chunk_tokens=LONGEST_SENTENCE, chunk_overlap=0,
        overflow="windows", window=window, window_cuts="content", on_tokens=progress,
    )  # fmt: skip
    if not vectors.spans:
        raise ApiError(400, "the document has no words that the model can read")
    titles = await server.encode(request, [title], overflow="truncate") if title else []
    vector = titles[0].vector if titles else None
    await imported
    return await asyncio.to_thread(Reading, document, vectors, vector, server.model)


class _Units:
    """Positions of a text's characters in units of UTF-16."""

    def __init__(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        wide = codes > 0xFFFF
        self._places = np.concatenate([[0], np.cumsum(1 + wide)]) if wide.any() else None

    def __call__(self, char: int) -> int:
        """The position of a character."""
        return char if self._places is None else int(self._places[char])


class _Heading(NamedTuple):
    """A heading in a text: its characters, and its level from 1."""

    start: int
    end: int
    level: int


def _headings(document: Document) -> list[_Heading]:
    """The headings that stand in a document's text."""
    return [
        _Heading(*span, landmark.number)
        for landmark in document.landmarks
        if landmark.kind == "heading"
        for span in headings_in(document.text, [landmark])
    ]


def _described(reading: Reading) -> dict[str, Any]:
    """A document as the page draws it."""
    document = reading.document
    at = _Units(document.text)
    return {
        "title": document.title or document.id,
        "num_tokens": reading.num_tokens,
        "text": document.text,
        "sentences": list(map(at, chain.from_iterable(reading.sentences))),
        "headings": [[at(each.start), at(each.end), each.level] for each in _headings(document)],
        "pages": [
            [at(each.char), each.label or str(each.number)]
            for each in document.landmarks
            if each.kind in ("page", "slide") and each.number
        ],
        "unread": dict(document.unread),
        "queries": _queries(document),
    }


def _queries(document: Document) -> list[str]:
    """Queries to try with a sample."""
    return list(SAMPLES[document.id].queries) if document.id in SAMPLES else []


def _answer(reading: Reading, query: str, vector: Floats) -> dict[str, Any]:
    """What a document says to a query."""
    hit: Hit = reading.hit(query, vector)
    at = _Units(reading.document.text)
    return {
        "query": query,
        "probability": hit.probability,
        "answered": hit.probability is None or hit.probability >= UNANSWERED,
        "passages": [_shown(passage, at, hit.title) for passage in hit.passages],
        "relevance": reading.heat.relevance(vector),
    }


def _shown(passage: Passage, at: _Units, title: str) -> dict[str, Any]:
    """A passage as the page lists it."""
    start, end = passage.highlight or (passage.char_start, passage.char_end)
    return {
        "start": at(passage.char_start),
        "end": at(passage.char_end),
        "score": passage.score,
        "places": _places(passage.location, title),
        "highlight": [at(start), at(end)],
        "num_similar": passage.num_similar,
    }


def _places(location: Location, title: str) -> list[str]:
    """A passage's place in words, then shorter ones, from which outer headings are left out.

    The title of the document stands above all of its passages and is no part of their places.

    >>> _places(Location(page=7, headings=("Lease", "Rent", "Late payment")), "Lease")
    ['p. 7 · Rent › Late payment', 'p. 7 · … › Late payment']
    """
    headings = location.headings
    if len(headings) > 1 and headings[0].casefold().split() == title.casefold().split():
        headings = headings[1:]
    paths = [headings, *(("…", *headings[first:]) for first in range(1, len(headings)))]
    return [place_in_words(replace(location, headings=path)) for path in paths]
