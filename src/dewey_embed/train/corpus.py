"""Sources of a recipe → one stream of texts: mixed by weight, shuffled by seed, each text once.

The stream is the same whenever and wherever it is read, so that work on it can be spread over
processes and taken up again by number. Reading, streaming and mixing are `datasets`'.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dewey_embed.errors import ReadError
from dewey_embed.extras import needs
from dewey_embed.printable import first_few
from dewey_embed.train.context import Titled, Why, titled, under_title
from dewey_embed.train.corpus_files import (
    AS_STRING,
    MOST_NAMED,
    cause,
    chosen_columns,
    find_files,
    read_files,
)
from dewey_embed.train.recipe import FIRST_LINE, CorpusRecipe, FilesSource, HubSource

if TYPE_CHECKING:
    from datasets import IterableDataset


@dataclass(frozen=True, slots=True)
class CorpusText:
    """A text of the corpus: `id` is the hash of its content, `source` where it came from.

    `titled` holds it by its parts, where its source has titles and it has one.
    """

    id: str
    text: str
    source: str
    held_out: bool
    titled: Titled | None = None


class Corpus:
    """The texts of a recipe's sources; iterating starts from the beginning each time.

    `left_out` counts, after a pass, the rows that were no text, too short, or duplicates, and the
    files that could not be read; these a warning names. `untitled` counts the texts that have no
    title, by why.
    """

    def __init__(self, recipe: CorpusRecipe) -> None:
        self.recipe = recipe
        self.left_out: Counter[str] = Counter()
        self.untitled: Why = Counter()

    def __iter__(self) -> Iterator[CorpusText]:
        """Every text once, in the order that the seed gives.

        Raises:
            ReadError: a source cannot be found, or nothing of it can be read.

        """
        self.left_out.clear()
        self.untitled.clear()
        seen: set[bytes] = set()
        for row in _rows(self.recipe, self.left_out):
            text = row["text"]
            if text is None:
                self.left_out["no text"] += 1
                continue
            if len(text) < self.recipe.min_characters:
                self.left_out["too short"] += 1
                continue
            try:
                digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            except UnicodeEncodeError:
                self.left_out["lone surrogates"] += 1
                continue
            if digest in seen:
                self.left_out["duplicate"] += 1
                continue
            seen.add(digest)
            held_out = int.from_bytes(digest[:4], "big") < self.recipe.held_out * 2**32
            yield CorpusText(digest.hex(), text, row["source"], held_out, self._titled(text, row))
            if self.recipe.max_texts is not None and len(seen) >= self.recipe.max_texts:
                return

    def _titled(self, text: str, row: Mapping[str, Any]) -> Titled | None:
        """The text by its parts, where it has a title."""
        if row["titles"] is None:
            self.untitled["texts of a source without titles"] += 1
            return None
        if row["titles"] == FIRST_LINE:
            return titled(text, self.untitled)
        return under_title(row["title"] or "", text, self.untitled)


def check_sources(recipe: CorpusRecipe) -> None:
    """Check that every local source has files, before anything is done that takes long.

    Raises:
        ReadError: one has none; names it.

    """
    for source in recipe.sources:
        if isinstance(source, FilesSource):
            find_files(source)


def _rows(recipe: CorpusRecipe, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """The rows of all sources; what breaks on the way is a file's fault."""
    try:
        yield from _mixed(recipe, left_out)
    except ReadError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors and bad UTF-8 are ValueErrors
        names = ", ".join(s.path if isinstance(s, FilesSource) else s.id for s in recipe.sources)
        raise ReadError(
            f"{names}: cannot be read to the end ({cause(error)}); "
            "mend the file or leave it out of corpus.sources"
        ) from None


def _mixed(recipe: CorpusRecipe, left_out: Counter[str]) -> IterableDataset:
    """All sources as one stream of rows `text`, `title`, `source`, `titles`, none of them twice."""
    with needs("train", "reading a corpus"):
        from datasets import disable_progress_bars, interleave_datasets
    if not sys.stderr.isatty():
        disable_progress_bars()
    streams = [
        _files(source, recipe.seed, left_out)
        if isinstance(source, FilesSource)
        else _hub(source, recipe)
        for source in recipe.sources
    ]
    if len(streams) == 1:
        return streams[0]
    total = sum(source.weight for source in recipe.sources)
    return interleave_datasets(
        streams,
        probabilities=[source.weight / total for source in recipe.sources],
        seed=recipe.seed,
        stopping_strategy="all_exhausted_without_replacement",
    )


def _files(source: FilesSource, seed: int, left_out: Counter[str]) -> IterableDataset:
    """Local files, shuffled as one; those that cannot be read are counted and named."""
    table, faults, bad_lines = read_files(source)
    for kind, found in (("unreadable file", faults), ("unreadable line", bad_lines)):
        if found:
            left_out[kind] += len(found)
            message = (
                f"{source.path}: left out {len(found):,}: {first_few(found, MOST_NAMED, '; ')}"
            )
            warnings.warn(message, UserWarning, stacklevel=2)
    columns = {name: name for name in source.columns}
    stream = table.shuffle(seed=seed).to_iterable_dataset()
    return _labelled(stream, source.path, source, columns)


def _hub(source: HubSource, recipe: CorpusRecipe) -> IterableDataset:
    """A data set of the hub (or a folder under its name), streamed and shuffled in a buffer."""
    from datasets import load_dataset

    try:
        stream = load_dataset(source.id, source.subset, split=source.split, streaming=True)
        chosen = chosen_columns(stream, source.columns, source.id)
    except ReadError:
        raise
    except (OSError, ValueError, StopIteration) as error:
        raise ReadError(
            f"{source.id}: no such data set here or on the hub ({cause(error)}); "
            "check corpus.sources.id, subset and split, or give local files"
        ) from None
    shuffled = chosen.shuffle(seed=recipe.seed, buffer_size=source.shuffle_buffer)
    return _labelled(shuffled, source.id, source, source.columns)


def _labelled(
    stream: IterableDataset,
    name: str,
    source: FilesSource | HubSource,
    columns: Mapping[str, str],
) -> IterableDataset:
    """The stream with its texts joined, so that all sources mix, and where they came from.

    `columns` are those that it has, by what they hold. Where there is something to be `matching`,
    the other texts are left out.
    """
    from datasets import Features, Value

    label = name if name.count("/") == 1 else Path(name).name.split(".")[0].rstrip("*_") or name
    kept = {"source": label, "titles": source.titles}
    texts = stream.map(
        lambda row: {
            "title": None,
            **{kind: AS_STRING[kind](row[column]) for kind, column in columns.items()},
            **kept,
        },
        remove_columns=list(columns.values()),
        features=Features(dict.fromkeys(("text", "title", *kept), Value("string"))),
    )
    if (matching := source.matching) is None:
        return texts
    return texts.filter(lambda row: row["text"] is not None and matching.search(row["text"]))
