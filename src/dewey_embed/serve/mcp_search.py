"""The tools `search` and `similar`: passages within a budget of tokens, each with its locator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dewey_embed.errors import InputError
from dewey_embed.scoring import UNANSWERED
from dewey_embed.serve.mcp_budget import Answer, most
from dewey_embed.serve.mcp_excerpts import shorter
from dewey_embed.serve.mcp_parameters import SearchParameters, SimilarParameters
from dewey_embed.serve.mcp_places import (
    CharRange,
    Library,
    Place,
    id_of,
    place_of,
    title_of,
    url_of,
)
from dewey_embed.text.locations import Places
from dewey_embed.types import Hit, Location, Passage


class Found(NamedTuple):
    """A passage of a hit, with its range: all of it, or what a budget leaves."""

    hit: Hit
    passage: Passage
    range: CharRange
    location: Location


def search(library: Library, given: SearchParameters) -> Answer:
    """What answers a query."""
    first, *also = library.filled or [library.first]
    if given.by == "passage":
        hits = first.passages(given.query, given.k, filter=given.filter or None, also=also)
    else:
        hits = first.search(given.query, given.k, filter=given.filter or None, also=also)
    hits = [replace(hit, index=hit.index or str(first.path)) for hit in hits]
    known = [hit.probability for hit in hits if hit.probability is not None]
    note = "nothing found" if not hits else ""
    if known and max(known) < UNANSWERED:
        note = "probably not in these documents; these are the nearest passages"
    return _results(library, hits, given.max_tokens, note=note, by=given.by)


def similar(library: Library, given: SimilarParameters) -> Answer:
    """Where else a passage is said.

    Raises:
        InputError: neither a passage nor a text is given, or both.

    """
    if (given.id is None) == (given.text is None):
        raise InputError("give either the id of a passage or a text")
    place = None if given.id is None else library.resolved(given.id)
    if place is not None and place.range is None:
        raise InputError("this is the id of a document; give that of a passage, or a text")
    text = given.text or ""
    if place is not None and place.range is not None:
        text = place.document.text[slice(*place.range)]
    first, *also = library.filled or [library.first]
    asked = given.k if place is None else given.k + 4
    while True:
        found = first.passages(text, asked, filter=given.filter or None, also=also)
        found = [replace(hit, index=hit.index or str(first.path)) for hit in found]
        hits = [
            hit
            for hit in found
            if place is None or _is_elsewhere(library, hit, place, given.other_documents)
        ]
        if len(hits) >= given.k or len(found) < asked:
            break
        asked *= 2
    # How likely a passage answers is known of queries, not of other passages.
    hits = [replace(hit, probability=None) for hit in hits[: given.k]]
    note = "" if hits else "said nowhere else"
    return _results(library, hits, given.max_tokens, note=note, by="passage")


def _is_elsewhere(library: Library, hit: Hit, place: Place, other_documents: bool) -> bool:
    """Whether a hit is in another document than a place, or in another part of it."""
    is_same = hit.document_id == place.document.id and library.index_of(hit) is place.held_by
    if not is_same or other_documents or place.range is None:
        return not is_same
    start, end = place.range
    return not any(each.char_start < end and start < each.char_end for each in hit.passages)


def _results(
    library: Library, hits: Sequence[Hit], max_tokens: int, *, note: str, by: str
) -> Answer:
    """The answer with as many passages as fit: the first ones, the next cut at sentences."""
    found = list(_breadth_first(hits))

    def answer(passages: Sequence[Found]) -> Answer:
        left_out = len(found) - len(passages)
        entries = _by_document if by == "document" else _by_passage
        return {
            "results": entries(library, passages),
            **({"passages_left_out": left_out} if left_out else {}),
            **({"note": note} if note else {}),
        }

    def fits(passages: Sequence[Found]) -> bool:
        return library.fits(answer(passages), max_tokens)

    num = most(lambda each: fits(found[:each]), len(found)) or 0
    shown = found[:num]
    if num < len(found):
        shown += _cut(library, found[num], lambda each: fits([*shown, each]), or_words=num == 0)
    return answer(shown)


def _breadth_first(hits: Sequence[Hit]) -> Iterator[Found]:
    """The best passage of each hit, then the second ones."""
    for rank in range(max((len(hit.passages) for hit in hits), default=0)):
        for hit in hits:
            for passage in hit.passages[rank : rank + 1]:
                char_range = passage.char_start, passage.char_end
                yield Found(hit, passage, char_range, passage.location)


def _cut(
    library: Library, found: Found, fits: Callable[[Found], bool], *, or_words: bool
) -> list[Found]:
    """The passage as far as it fits, if any of it does."""
    document = library.index_of(found.hit).document(found.hit.document_id)
    places = Places(document.landmarks, document.text)

    def part(start: int, end: int) -> Found:
        return found._replace(range=(start, end), location=places.location(start, end))

    char_range = shorter(found.passage, lambda *each: fits(part(*each)), or_words=or_words)
    return [] if char_range is None else [part(*char_range)]


def _by_passage(library: Library, passages: Sequence[Found]) -> list[Answer]:
    """Each passage as a result of its own."""
    return [
        {
            **_passage_entry(library, each, of_its_own=True),
            "score": round(each.passage.score, 3),
            **_probability(each.hit),
        }
        for each in passages
    ]


def _by_document(library: Library, passages: Sequence[Found]) -> list[Answer]:
    """Each document as a result with its passages."""
    entries: dict[int, Answer] = {}
    for each in passages:
        hit = each.hit
        if id(hit) not in entries:
            entries[id(hit)] = {
                "id": id_of(library.name_of(hit), hit.document_id),
                "title": title_of(hit.title, hit.document_id),
                "url": url_of(hit.source, hit.document_id, Location()),
                "score": round(hit.score, 3),
                **_probability(hit),
                "passages": [],
            }
        entries[id(hit)]["passages"].append(_passage_entry(library, each, of_its_own=False))
    return list(entries.values())


def _probability(hit: Hit) -> Answer:
    return {} if hit.probability is None else {"probability": round(hit.probability, 2)}


def _passage_entry(library: Library, found: Found, *, of_its_own: bool) -> Answer:
    """A passage with its locator; one of its own also has its document's title and address."""
    hit, passage, (start, end), location = found
    of_document = {
        "title": title_of(hit.title, hit.document_id),
        "url": url_of(hit.source, hit.document_id, location),
    }
    is_cut = end - start < passage.char_end - passage.char_start
    return {
        "id": id_of(library.name_of(hit), hit.document_id, (start, end)),
        **(of_document if of_its_own else {}),
        "place": place_of(location, start, end),
        "text": passage.text[start - passage.char_start : end - passage.char_start],
        **({"cut": True} if is_cut else {}),
        **({"similar_passages": passage.num_similar} if passage.num_similar else {}),
    }
