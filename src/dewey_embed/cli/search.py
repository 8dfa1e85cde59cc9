"""`dewey search`: queries of an index, and how hits are printed."""

from __future__ import annotations

import codecs
import json as jsonlib
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.background import in_background
from dewey_embed.cli.hits import print_hits
from dewey_embed.errors import InputError, TextTooLongError
from dewey_embed.storage import folder_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dewey_embed.index.index import Index
    from dewey_embed.types import FilterValue, Hit, MetadataValue, Passage

TOO_LONG = "is longer than the model takes; ask with fewer words"

_SHOWN = 10
"""Values shown where a filter lets no document pass."""

Filters = Mapping[str, Sequence["FilterValue"]]
"""For each key the values and ranges of which one must match."""

Mode = Literal["hybrid", "multi", "single"]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="QUERY",
        help="What to look for, with or without quotes; - or nothing: one query a line of "
        "standard input.",
    ),
]
TopK = Annotated[int, typer.Option("-k", envvar="DEWEY_K", min=1, help="How many documents.")]
ModeOption = Annotated[
    Mode,
    typer.Option(
        "--mode",
        envvar="DEWEY_MODE",
        help="hybrid: passages by their meaning and their words (BM25), and by those of what "
        "stands around them; multi: by meaning alone; single: documents by their one vector.",
    ),
]
Passages = Annotated[
    int, typer.Option(envvar="DEWEY_PASSAGES", min=0, help="How many passages of each document.")
]
By = Annotated[
    Literal["document", "passage"],
    typer.Option(
        "--by", envvar="DEWEY_BY", help="What -k counts: documents, or passages of any document."
    ),
]
Context = Annotated[
    int,
    typer.Option(
        envvar="DEWEY_CONTEXT", min=0, help="How many sentences to add around each passage."
    ),
]
Full = Annotated[
    bool, typer.Option("--full", help="Show passages in full, not only around the answer.")
]
Also = Annotated[
    list[Path] | None,
    typer.Option(
        envvar="DEWEY_ALSO",
        parser=folder_named,
        metavar="INDEX",
        help="A further index of the same model to search; may be given again.",
    ),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DEWEY_FILTER",
        metavar="KEY=VALUE",
        help="Metadata that documents must have; a key given again takes any of its values. "
        "'KEY>=VALUE', and so on, for a range of numbers, or of text such as ISO dates; beside "
        "values of the same key the range is one more of them.",
    ),
]


def search(
    index: options.IndexArgument,
    words: Words = None,
    *,
    k: TopK = 5,
    mode: ModeOption = "hybrid",
    passages: Passages = 3,
    by: By = "document",
    context: Context = 0,
    full: Full = False,
    filter: Filter = None,  # noqa: A002 - the option's name
    also: Also = None,
    model: options.Model = None,
    json: options.Json = False,
) -> None:
    """Find the documents that answer a query, with their best passages.

    Without a query, on a terminal, it is a prompt.

    With --json, one object for each query, on a line: {"query": ..., "hits": [...]}.
    """
    wanted = parse_filters(filter or [])
    query = " ".join(words or ["-"])
    is_prompt = not words and sys.stdin.isatty()
    from_stdin = query == "-"
    query_vector = None
    if not from_stdin:
        query = checked(query, "the query")
        query_vector = in_background(partial(_query_vector, index, model, query))
    opened = _open(index, None if query_vector else model)
    others = [_open(each, None) for each in also or []]

    def answer(text: str) -> None:
        vector = query_vector() if query_vector else None
        if by == "passage":
            hits = opened.passages(text, k, mode=mode, filter=wanted, vector=vector, also=others)
        else:
            hits = opened.search(
                text, k, mode=mode, passages=passages, filter=wanted, vector=vector, also=others
            )
        hits = _widened([opened, *others], hits, context) if context else hits
        if json:
            console.print_json({"query": text, "hits": [asdict(hit) for hit in hits]})
        else:
            print_hits(text, hits, heading=from_stdin and not is_prompt, full=full or context > 0)
        if not hits and not any(map(len, (opened, *others))):
            console.say(f"{opened.path} holds no documents yet; dewey index fills it")
        if filter and not hits:
            _say_what_there_is([opened, *others], wanted, filter)

    if from_stdin:
        _ = opened.model
        _answer_lines(answer, _prompted() if is_prompt else _lines())
        return
    try:
        answer(query)
    except TextTooLongError:
        raise InputError(f"the query {TOO_LONG}") from None


def _say_what_there_is(indexes: Sequence[Index], wanted: Filters, filters: Sequence[str]) -> None:
    """Say which values documents have, where no document passes the filters."""
    held = ", ".join(
        _values_in_words(key, _values(indexes, key), as_range=isinstance(wanted[key][-1], dict))
        for key in wanted
    )
    console.say(f"no document has {' and '.join(filters)}; there are {held}")


def _values(indexes: Sequence[Index], key: str) -> list[tuple[MetadataValue, int]]:
    """The values of a key in all indexes, with their numbers of documents, most first."""
    counts: Counter[tuple[type, MetadataValue]] = Counter()  # 1 and true are equal in Python
    for index in indexes:
        with suppress(InputError):  # this one has no such key
            for value, number in index.metadata_values(key):
                counts[type(value), value] += number
    return [(value, number) for (_, value), number in counts.most_common()]


def _values_in_words(
    key: str, counts: Sequence[tuple[MetadataValue, int]], *, as_range: bool
) -> str:
    """The values of a key as a filter takes them; many of one kind that has an order as a range."""
    values = [value for value, _ in counts]
    numbers = [each for each in values if isinstance(each, int | float) and each is not True]
    texts = [each for each in values if isinstance(each, str)]
    for ordered in (numbers, texts):
        if len(ordered) == len(values) > _SHOWN and (as_range or ordered is numbers):
            low, high = _literal(min(ordered)), _literal(max(ordered))
            return f"{key} from {low} to {high}"
    shown = [f"{key}={_literal(value)} ({number:,})" for value, number in counts[:_SHOWN]]
    more = len(counts) - _SHOWN
    return ", ".join(shown) + (f" and {more:,} more of {key}" if more > 0 else "")


def _literal(value: MetadataValue) -> str:
    """A value as `--filter` takes it."""
    return value if isinstance(value, str) else jsonlib.dumps(value)


def _widened(indexes: Sequence[Index], hits: Sequence[Hit], sentences: int) -> list[Hit]:
    """The hits with as many sentences more around each passage, without those shown already."""
    paths = {"": indexes[0], **{str(each.path): each for each in indexes}}
    shown: dict[tuple[str, str], list[Passage]] = defaultdict(list)
    widened = []
    for hit in hits:
        others = shown[hit.index, hit.document_id]
        passages = []
        for passage in hit.passages:
            if any(each.char_start <= passage.char_start and passage.char_end <= each.char_end
                   for each in others):  # fmt: skip
                continue
            passages.append(paths[hit.index].around(passage, sentences))
            others.append(passages[-1])
        if passages or not hit.passages:
            widened.append(replace(hit, passages=passages))
    return widened


def _prompted() -> Iterator[bytes]:
    """Queries typed at a prompt, until the end of input."""
    with suppress(ImportError):
        import readline  # noqa: F401 - lines can then be edited and called back

    console.echo("type a question; Ctrl-D ends")
    while True:
        try:
            line = input("? ")
        except EOFError:
            console.echo()
            return
        if line.strip():
            yield os.fsencode(line.strip())


def _answer_lines(answer: Callable[[str], None], lines: Iterator[bytes]) -> None:
    """Answer the queries on standard input, and name those that cannot be answered.

    Raises:
        Exit: some were not answered.

    """
    num_failed = num_answered = 0
    for number, line in enumerate(lines, start=1):
        name = f"query {number} on standard input"
        try:
            answer(checked(line, name))
            num_answered += 1
        except InputError as error:
            num_failed += 1
            said = f"{name} {TOO_LONG}" if isinstance(error, TextTooLongError) else str(error)
            console.say(f"error: {said if said.startswith(name) else f'{name}: {said}'}")
    if num_failed:
        raise typer.Exit(options.EXIT_UNREADABLE if num_answered else 1)


def _open(index: Path, model: str | None) -> Index:
    """The index, with what every query needs in memory."""
    from dewey_embed.index.index import Index

    opened = Index.open(index, model)
    len(opened)
    return opened


def _query_vector(index: Path, model: str | None, query: str) -> NDArray[np.float32]:
    """The query's vector, by the model that made the index."""
    from dewey_embed.index.index import Index

    return Index.open(index, model).model.encode_query(query)


_PAIR = re.compile(r"([^<>=].*?)(>=|<=|>|<|=)(.*)", re.DOTALL)


def parse_filters(pairs: Sequence[str]) -> Filters:
    """Filters from `key=value` and `key>=bound`: for each key the values and the range that pass.

    A value that is valid JSON also matches that JSON value, a bound that is a number also numbers.

    Raises:
        BadParameter: a pair without a key or a comparison.

    """
    wanted: dict[str, list[FilterValue]] = {}
    bounds: dict[str, dict[str, str]] = {}
    for pair in pairs:
        parsed = _PAIR.fullmatch(pair)
        if parsed is None:
            raise typer.BadParameter(
                f"{pair!r} is not KEY=VALUE, nor a comparison such as 'KEY>=VALUE', which the "
                "shell needs quoted",
                param_hint="--filter",
            )
        key, comparison, text = parsed.groups()
        values = wanted.setdefault(key, [])
        if comparison == "=":
            values += _readings(text)
        elif comparison in bounds.setdefault(key, {}):
            raise typer.BadParameter(
                f"{pair!r} is the second bound of this kind; give each once", param_hint="--filter"
            )
        else:
            bounds[key][comparison] = text
    for key, texts in bounds.items():
        numbers = {name: _number(text) for name, text in texts.items()}
        if None not in numbers.values():
            wanted[key].append({name: each for name, each in numbers.items() if each is not None})
        wanted[key].append(texts)
    return wanted


def _readings(text: str) -> list[FilterValue]:
    """The values that a text may stand for."""
    try:
        value = jsonlib.loads(text)
    except ValueError:
        return [text]
    if isinstance(value, int | float) and not abs(value) < 2**63:
        return [text]  # past what metadata holds, as infinity is
    is_flat = value is None or isinstance(value, str | int | float | bool)
    return [text, value] if is_flat else [text]


def _number(text: str) -> int | float | None:
    """The number that a text stands for, if it does."""
    numbers = [each for each in _readings(text)[1:] if isinstance(each, int | float)]
    return None if not numbers or isinstance(numbers[0], bool) else numbers[0]


def checked(query: str | bytes, name: str) -> str:
    """The query as text, stripped.

    Raises:
        InputError: it is not UTF-8, or it is blank; the message begins with `name`.

    """
    try:
        # Python gives bytes of the command line that are not UTF-8 as lone surrogates.
        text = (query if isinstance(query, bytes) else os.fsencode(query)).decode()
    except UnicodeError:
        raise InputError(f"{name} is not UTF-8: {query!r:.80}; convert it to UTF-8") from None
    if not text.strip():
        raise InputError(f"{name} is blank; give words to look for")
    return text.strip()


def _lines() -> Iterator[bytes]:
    """The lines of standard input in bytes, without blank ones."""
    for number, line in enumerate(sys.stdin.buffer):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        if text.strip():
            yield text.strip()
