"""Indexes over HTTP: documents in and out, and searched, as `dewey index` and `dewey search` do."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response, UploadFile
from pydantic import BaseModel, Field

from dewey_embed.errors import IndexStoreError, InputError
from dewey_embed.index.index import Index
from dewey_embed.index.settings import IndexSettings
from dewey_embed.scoring import UNANSWERED
from dewey_embed.serve.bodies import Body, Text, answered, new_router
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.server import in_thread, server_of, while_connected
from dewey_embed.serve.uploads import file_name
from dewey_embed.text.reader import read_documents
from dewey_embed.types import (
    Document,
    FilterValue,
    Floats,
    Hit,
    MetadataValue,
    SearchMode,
    Unreadable,
)

router = new_router("Indexes")
uploads = APIRouter(tags=["Indexes"])

MAX_HITS = 1_000
MAX_LISTED = 10_000
MAX_CONTEXT = 100


class SearchBody(Body):
    """A query of an index; the options are those of `dewey search`."""

    query: Annotated[str, Field(min_length=1, examples=["who pays for the roof?"])]
    k: Annotated[int, Field(ge=1, le=MAX_HITS, description="Number of hits.")] = 5
    mode: Annotated[SearchMode, Field(description="How passages are ranked.")] = "hybrid"
    passages: Annotated[
        int, Field(ge=0, le=MAX_HITS, description="Number of passages of each document.")
    ] = 3
    by: Annotated[
        Literal["document", "passage"],
        Field(description="What `k` counts: documents, or passages of any document."),
    ] = "document"
    context: Annotated[
        int, Field(ge=0, le=MAX_CONTEXT, description="Sentences to add around each passage.")
    ] = 0
    filter: Annotated[
        dict[str, FilterValue | list[FilterValue]] | None,
        Field(
            description="Metadata that documents must have: for each key a value, a range, or "
            "several of which one must match.",
            examples=[{"extension": [".pdf", ".docx"], "year": {">=": 2020}}],
        ),
    ] = None
    also: Annotated[
        list[str],
        Field(default_factory=list, description="Further indexes to search, by name."),
    ]


class NewDocument(Body):
    """A document to put into an index."""

    id: Annotated[Text, Field(min_length=1, max_length=4096)]
    text: str
    title: Annotated[str, Field(max_length=4096)] = ""
    metadata: Annotated[dict[str, str | int | float | bool | None], Field(default_factory=dict)]


class DocumentsBody(Body):
    """Documents to put into an index; those with a known id replace it."""

    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=100_000)]


class NamesBody(Body):
    """Documents to take out of an index, by their ids."""

    ids: Annotated[list[Text], Field(min_length=1, max_length=100_000)]


class SearchAnswer(BaseModel):
    """The hits of a search; scores are from 0 to 1, characters are those of the document's text."""

    query: str
    is_answered: bool | None
    hits: list[Hit]


class DescribedIndex(BaseModel):
    """An index; `error` says why one cannot be read, whose numbers are left out then."""

    id: str
    object: Literal["index"]
    path: str
    model: str | None = None
    num_documents: int | None = None
    num_chunks: int | None = None
    error: str | None = None


class Indexes(BaseModel):
    """The indexes that are served."""

    object: Literal["list"]
    data: list[DescribedIndex]


class ListedDocument(BaseModel):
    """A document without its text."""

    id: str
    title: str
    source: str
    metadata: dict[str, MetadataValue]


class DocumentList(BaseModel):
    """Documents in the order of their ids."""

    data: list[ListedDocument]
    has_more: bool


class ReadDocument(ListedDocument):
    """A document, or characters of it from `start` on; it has `num_chars` in all."""

    num_chars: int
    start: int
    text: str


class Fault(BaseModel):
    """What gave no document, or a line of it, with the reason."""

    source: str
    line: int | None
    reason: str


class AddReport(BaseModel):
    """What was done with documents; `unread` counts by file what was left out of it, or guessed."""

    num_added: int
    num_changed: int
    num_unchanged: int
    added: list[str]
    changed: list[str]
    unreadable: list[Fault]
    unread: dict[str, dict[str, int]]


class RemovedReport(BaseModel):
    """What was taken out; `unknown` are ids that were not there."""

    num_removed: int
    unknown: list[str]


@router.get("/v1/indexes", response_model=Indexes)
async def list_indexes(request: Request) -> Response:
    """The indexes, with their numbers of documents and chunks; what cannot be read says why."""
    server = server_of(request)
    described = await asyncio.to_thread(
        lambda: [_described(name, index) for name, index in server.indexes.items()]
    )
    return await answered(lambda: {"object": "list", "data": described})


@router.get("/v1/indexes/{name}", response_model=DescribedIndex)
async def describe_index(request: Request, name: str) -> Response:
    """An index, with its numbers of documents and chunks."""
    described = await asyncio.to_thread(_described, name, _index(request, name))
    if "error" in described:
        raise ApiError(503, described["error"], kind="index_unavailable")
    return await answered(lambda: described)


@router.post("/v1/indexes/{name}/search", response_model=SearchAnswer)
async def search(request: Request, name: str, body: SearchBody) -> Response:
    """The documents that answer a query, best first, with their best passages: where each stands.

    `hits` are those of `dewey search --json`; `is_answered` is false where the documents probably
    hold no answer, and null where that cannot be told.
    """
    index = _index(request, name)
    also = [_index(request, each) for each in body.also]
    server, vector = server_of(request), None
    made = await in_thread(server.searchers, lambda: index.settings)
    if made.fingerprint == server.model.fingerprint:  # so that a client who leaves stops it
        [encoded] = await server.encode(request, [body.query], prompt_name="query", spans=[[]])
        vector = encoded.vector
    hits = await while_connected(
        request,
        in_thread(server.searchers, partial(_hits, index, also, body, vector)),
        server.settings.timeout_s,
    )
    known = [hit.probability for hit in hits if hit.probability is not None]
    is_answered = None if hits and not known else bool(known) and max(known) >= UNANSWERED
    return await answered(
        lambda: {
            "query": body.query,
            "is_answered": is_answered,
            "hits": [asdict(hit) for hit in hits],
        }
    )


@router.get("/v1/indexes/{name}/documents", response_model=DocumentList)
async def list_documents(
    request: Request,
    name: str,
    after: str = "",
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 100,
) -> Response:
    """Documents by their ids, without texts; `after` is the last id of the list before."""
    index = _index(request, name)

    def listed() -> list[dict[str, Any]]:
        remaining = (each for each in index.documents() if not after or each.id > after)
        return [
            {"id": each.id, "title": each.title, "source": each.source,
             "metadata": dict(each.metadata)}
            for each in islice(remaining, limit + 1)
        ]  # fmt: skip

    found = await asyncio.to_thread(listed)
    return await answered(lambda: {"data": found[:limit], "has_more": len(found) > limit})


@router.get("/v1/indexes/{name}/documents/{document_id:path}", response_model=ReadDocument)
async def get_document(
    request: Request,
    name: str,
    document_id: str,
    start: Annotated[int, Field(ge=0)] = 0,
    end: Annotated[int | None, Field(ge=0)] = None,
) -> Response:
    """A document as it was indexed, or characters [start, end) of it."""
    index = _index(request, name)
    document = await asyncio.to_thread(_document, index, document_id)
    length = len(document.text)
    if start > length or (end is not None and not start <= end <= length):
        raise ApiError(
            400, f"characters {start} to {end} of a text that has {length:,}; give a range in it"
        )
    return await answered(
        lambda: {
            "id": document.id,
            "title": document.title,
            "source": document.source,
            "metadata": dict(document.metadata),
            "num_chars": length,
            "start": start,
            "text": document.text[start:end],
        }
    )


@router.post("/v1/indexes/{name}/documents", response_model=AddReport)
async def add_documents(request: Request, name: str, body: DocumentsBody) -> Response:
    """Put documents into an index: new ones are encoded, changed ones replaced, others kept."""
    return await _added(request, name, list(map(_document_of, body.documents)))


@uploads.post("/v1/indexes/{name}/files", response_model=AddReport)
async def add_files(request: Request, name: str, files: list[UploadFile]) -> Response:
    """Put files into an index, of every kind that `dewey index` reads; their names are their ids.

    What cannot be read is named with its reason, and the rest is indexed.
    """
    _writable(request, name)
    items: list[Document | Unreadable] = []
    with tempfile.TemporaryDirectory(prefix="dewey-upload-") as folder:
        for number, file in enumerate(files):
            given = file_name(file.filename or "", otherwise=f"file-{number}")
            path = Path(folder, str(number), given)
            path.parent.mkdir()
            with path.open("wb") as copy:
                while block := await file.read(1 << 20):
                    await asyncio.to_thread(copy.write, block)
            items += await in_thread(server_of(request).readers, partial(_read, path))
    return await _added(request, name, items)


@router.post("/v1/indexes/{name}/documents/delete", response_model=RemovedReport)
async def remove_documents(request: Request, name: str, body: NamesBody) -> Response:
    """Take documents out of an index."""
    index = _writable(request, name)
    report = await in_thread(
        server_of(request).writers, partial(index.remove, body.ids, by_id=True)
    )
    return await answered(lambda: {"num_removed": report.num_removed, "unknown": report.unknown})


@router.delete("/v1/indexes/{name}/documents/{document_id:path}", response_model=RemovedReport)
async def remove_document(request: Request, name: str, document_id: str) -> Response:
    """Take a document out of an index."""
    index = _writable(request, name)
    report = await in_thread(
        server_of(request).writers, partial(index.remove, document_id, by_id=True)
    )
    if not report.num_removed:
        raise ApiError(404, f"no document {document_id[:200]!r} in index {name!r}")
    return await answered(lambda: {"num_removed": report.num_removed, "unknown": []})


def _index(request: Request, name: str) -> Index:
    """The index of a name.

    Raises:
        ApiError: there is none; names those there are.

    """
    indexes = server_of(request).indexes
    if name not in indexes:
        known = ", ".join(indexes) or "none: start the server with --index"
        raise ApiError(404, f"no index {name[:100]!r} is served here; there are {known}")
    return indexes[name]


def _writable(request: Request, name: str) -> Index:
    """The index of a name, if this server may change it.

    Raises:
        ApiError: it may not, or there is none.

    """
    if server_of(request).settings.read_only:
        raise ApiError(403, "the server was started with --read-only: indexes are only searched")
    return _index(request, name)


def _described(name: str, index: Index) -> dict[str, Any]:
    described: dict[str, Any] = {"id": name, "object": "index", "path": str(index.path)}
    try:
        counts = {"num_documents": len(index), "num_chunks": index.num_chunks}
        is_new = not any(counts.values()) and IndexSettings.read(index.path) is None
        return described | {"model": None if is_new else index.settings.model} | counts
    except IndexStoreError as error:
        return described | {"error": str(error)}


def _document(index: Index, document_id: str) -> Document:
    """The document of an id.

    Raises:
        ApiError: there is none.

    """
    try:
        return index.document(document_id)
    except InputError as error:
        raise ApiError(404, str(error), kind="not_found") from None


def _document_of(given: NewDocument) -> Document | Unreadable:
    """The document, or the reason why it cannot be one."""
    if not given.text.strip():
        return Unreadable(source=given.id, document_id=given.id, reason="its text is blank")
    for each in (given.id, given.title, given.text):
        if any("\ud800" <= character <= "\udfff" for character in each):
            reason = "it holds halves of characters (lone surrogates); send Unicode text"
            return Unreadable(source=given.id, document_id=given.id, reason=reason)
    return Document(id=given.id, text=given.text, title=given.title, metadata=given.metadata)


def _hits(
    index: Index, also: Sequence[Index], body: SearchBody, vector: Floats | None
) -> list[Hit]:
    if body.by == "passage":
        hits = index.passages(
            body.query, body.k, mode=body.mode, filter=body.filter, vector=vector, also=also
        )
    else:
        hits = index.search(
            body.query, body.k,
            mode=body.mode, passages=body.passages, filter=body.filter, vector=vector, also=also,
        )  # fmt: skip
    if not body.context:
        return hits
    holders = {"": index, **{str(each.path): each for each in (index, *also)}}
    return [
        replace(
            hit,
            passages=[holders[hit.index].around(passage, body.context) for passage in hit.passages],
        )
        for hit in hits
    ]


def _read(path: Path) -> list[Document | Unreadable]:
    """What stands in an uploaded file, under the name that it was sent by."""
    items: list[Document | Unreadable] = []
    for item in read_documents([path]):
        source = item.source.replace(str(path), path.name)
        if isinstance(item, Unreadable):
            items.append(replace(item, source=source, root="", reason=item.reason))
        else:
            name = item.id.replace(str(path), path.name)
            items.append(replace(item, id=name, source=source, root=""))
    return items


async def _added(request: Request, name: str, items: Sequence[Document | Unreadable]) -> Response:
    """Put documents into an index and answer with what was done."""
    index = _writable(request, name)
    report = await in_thread(server_of(request).writers, partial(index.add, items))
    return await answered(
        lambda: {
            "num_added": report.num_added,
            "num_changed": report.num_changed,
            "num_unchanged": report.num_unchanged,
            "added": report.added,
            "changed": report.changed,
            "unreadable": [
                {"source": each.source, "line": each.line, "reason": each.reason}
                for each in (*report.unreadable, *report.skipped)
            ],
            "unread": {source: dict(counts) for source, counts in report.unread.items()},
        }
    )
