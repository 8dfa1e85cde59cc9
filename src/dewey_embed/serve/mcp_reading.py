"""The tools `fetch`, `expand` and `outline`: a document's text and sections, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dewey_embed.errors import InputError
from dewey_embed.serve.mcp_budget import Answer, most, rendered
from dewey_embed.serve.mcp_excerpts import CHARS_PER_TOKEN, excerpt
from dewey_embed.serve.mcp_parameters import (
    ExpandParameters,
    FetchParameters,
    OutlineParameters,
)
from dewey_embed.serve.mcp_places import (
    CharRange,
    Library,
    Place,
    id_of,
    place_of,
    shortened,
    title_of,
    url_of,
)
from dewey_embed.text.locations import Places
from dewey_embed.text.sentences import widened
from dewey_embed.types import Document, Landmark, LandmarkKind, Location


def fetch(library: Library, given: FetchParameters) -> Answer:
    """A document, or a range of it."""
    place = library.resolved(given.id)
    within = _wanted(place.document, given)
    around = (within[0], within[0]) if within else place.range or (0, 0)
    within = within or (0, len(place.document.text))
    return _excerpted(library, place, given.max_tokens, within=within, around=around)


def expand(library: Library, given: ExpandParameters) -> Answer:
    """What stands around a passage.

    Raises:
        InputError: the id is that of a document.

    """
    place = library.resolved(given.id)
    if place.range is None:
        raise InputError("this is the id of a document; give that of a passage, or use fetch")
    text, landmarks = place.document.text, place.document.landmarks
    within = widened(text, *place.range, given.sentences, landmarks)
    return _excerpted(library, place, given.max_tokens, within=within, around=place.range)


def _wanted(document: Document, given: FetchParameters) -> CharRange | None:
    """The range that `start` and `end`, or pages, ask for; `None` where neither is given.

    Raises:
        InputError: both are given, or the document has no such range.

    """
    by_pages = given.first_page is not None or given.last_page is not None
    by_chars = given.start is not None or given.end is not None
    if by_pages and by_chars:
        raise InputError("give either start and end or pages")
    if by_pages:
        first = given.first_page or 1
        return _of_pages(document, first, given.last_page or first)
    if not by_chars:
        return None
    length = len(document.text)
    start, end = given.start or 0, length if given.end is None else min(given.end, length)
    if start > end or (start == end and length):
        raise InputError(
            f"there are no characters from {start:,} to {end:,}: the document has {length:,}"
        )
    return start, end


_PAGED: tuple[LandmarkKind, ...] = ("page", "slide", "sheet", "cell")


def _of_pages(document: Document, first: int, last: int) -> CharRange:
    """The characters of pages, or of slides, sheets or cells.

    Raises:
        InputError: the document has none of them, or not these.

    """
    for kind in _PAGED:
        marks = [each for each in document.landmarks if each.kind == kind]
        numbers = [each.number for each in marks if each.number]
        if not numbers:
            continue
        if not any(first <= each <= last for each in numbers):
            raise InputError(
                f"there is no {kind} from {first:,} to {last:,}: the document has {kind}s "
                f"{min(numbers):,} to {max(numbers):,}"
            )
        start = next(each.char for each in marks if first <= each.number <= last)
        after = [each.char for each in marks if each.char > start
                 and not first <= each.number <= last]  # fmt: skip
        return start, after[0] if after else len(document.text)
    raise InputError("the document has no pages; give start and end")


def _excerpted(
    library: Library, place: Place, max_tokens: int, *, within: CharRange, around: CharRange
) -> Answer:
    """The answer with as much of a range as fits, and the ranges before and after that.

    Raises:
        InputError: the budget leaves no room for any of the text.

    """
    document = place.document
    places = Places(document.landmarks, document.text)
    note = {}
    if place.held_by.has_changed(document.id):
        note = {"note": "the file has changed since it was indexed; this text is of then"}

    def answer(start: int, end: int, metadata: Answer) -> Answer:
        location = places.location(start, end)
        return {
            "id": id_of(place.name, document.id, place.range),
            "title": title_of(document.title, document.id),
            "url": url_of(document.source, document.id, location),
            "place": place_of(location, start, end),
            "text": document.text[start:end],
            **({"before": {"start": within[0], "end": start}} if start > within[0] else {}),
            **({"after": {"start": end, "end": within[1]}} if end < within[1] else {}),
            "length": len(document.text),
            **metadata,
            **note,
        }

    def size(metadata: Answer, num_chars: int = 0) -> int:
        start = around[0]
        return library.count(rendered(answer(start, min(start + num_chars, within[1]), metadata)))

    metadata = _metadata(document, size, max_tokens)
    char_range = excerpt(
        document,
        within=within,
        around=around,
        fits=lambda start, end: library.fits(answer(start, end, metadata), max_tokens),
        reach=CHARS_PER_TOKEN * max_tokens,
    )
    if char_range is None or (char_range[0] == char_range[1] and around[0] < within[1]):
        raise _too_few(max_tokens, size(metadata, num_chars=1))
    return answer(*char_range, metadata)


def _metadata(document: Document, size: Callable[[Answer], int], max_tokens: int) -> Answer:
    """The metadata that leave half of what else an answer leaves to its text, the short ones first.

    `size` is the number of tokens of an answer without text, with these metadata.
    """
    known = dict(document.metadata)
    by_length = sorted(known, key=lambda key: len(rendered({key: known[key]})))

    def entry(num: int) -> Answer:
        kept = set(by_length[:num])
        left_out = {"metadata_left_out": len(known) - num} if num < len(known) else {}
        return {"metadata": {key: known[key] for key in known if key in kept}, **left_out}

    limit = (size(entry(0)) + max_tokens) // 2
    return entry(most(lambda num: size(entry(num)) <= limit, len(known)) or 0)


def _too_few(max_tokens: int, least: int) -> InputError:
    """The refusal of a budget below the least with which anything of a document is shown."""
    return InputError(
        f"max_tokens is {max_tokens:,}; the id, the address and the place of this document take "
        f"most of it: give at least {least:,}, better some hundreds more"
    )


def outline(library: Library, given: OutlineParameters) -> Answer:
    """The sections of a document, with their ranges: as many as fit, the widest level first.

    Raises:
        InputError: the budget leaves no room for any section.

    """
    place = library.resolved(given.id)
    document = place.document
    kind, sections = _sections(document)
    sections = [each for each in sections if each["start"] >= given.start]
    levels = sorted({each.get("level", 1) for each in sections})[: given.depth]
    within = [each for each in sections if each.get("level", 1) in levels]
    # The first one comes first whatever its level, so that whoever reads on gets on.
    ordered = [*within[:1], *sorted(within[1:], key=lambda each: each.get("level", 1))]

    def answer(num: int) -> Answer:
        left_out = ordered[num:]
        rest = [each for each in left_out if each.get("level") == left_out[0].get("level")]
        deeper = len(sections) - num - len(rest)
        return {
            "id": id_of(place.name, document.id),
            "title": title_of(document.title, document.id),
            "url": url_of(document.source, document.id, Location()),
            "length": len(document.text),
            "by": kind,
            "sections": sorted(ordered[:num], key=lambda each: each["start"]),
            **({"deeper_sections_left_out": deeper} if deeper else {}),
            **({"sections_left_out": len(rest), "next_start": rest[0]["start"]} if rest else {}),
        }

    def fits(num: int) -> bool:
        return library.fits(answer(num), given.max_tokens)

    if fits(len(ordered)):
        return answer(len(ordered))
    least = min(1, len(ordered))
    num = most(fits, len(ordered), least=least)
    if num is None:
        raise _too_few(given.max_tokens, library.count(rendered(answer(least))))
    return answer(num)


def _sections(document: Document) -> tuple[str, list[Answer]]:
    """What divides a document, and its sections: by headings, else by pages, else all of it."""
    places = Places(document.landmarks, document.text)
    headings = [each for each in document.landmarks if each.kind == "heading"]
    if any(each.number and each.label for each in headings):
        return "heading", [
            {
                "title": shortened(" ".join(mark.label.split()), 120),
                "level": mark.number,
                **_page(places.location(mark.char, mark.char + 1)),
                "start": mark.char,
                "end": end,
            }
            for mark, end in _with_ends(headings, len(document.text))
        ]
    for kind in _PAGED:
        marks = [each for each in document.landmarks if each.kind == kind]
        ends = [*(each.char for each in marks[1:]), len(document.text)]
        sections = [
            {
                kind: mark.number,
                **({"title": shortened(mark.label, 120)} if mark.label else {}),
                "start": mark.char,
                "end": end,
            }
            for mark, end in zip(marks, ends, strict=False)
            if mark.number
        ]
        if sections:
            return kind, sections
    return "document", [{"start": 0, "end": len(document.text)}]


def _page(location: Location) -> Answer:
    """The page of a location, where there is one."""
    return {} if location.page is None else {"page": location.page}


def _with_ends(headings: Sequence[Landmark], length: int) -> list[tuple[Landmark, int]]:
    """Headings with the characters at which their sections end: the next one as wide, or wider."""
    ends: dict[int, int] = {}
    waiting: list[int] = []
    for position, mark in enumerate(headings):
        while waiting and headings[waiting[-1]].number >= mark.number:
            ends[waiting.pop()] = mark.char
        if mark.number and mark.label:
            waiting.append(position)
    ends.update(dict.fromkeys(waiting, length))
    return [(headings[position], ends[position]) for position in sorted(ends)]
