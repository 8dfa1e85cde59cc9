"""`dewey.json`: which model made an index, and how its documents were cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field

from dewey_embed.config import EncodeOptions, Settings
from dewey_embed.errors import ConfigError, IndexMismatchError, IndexStoreError
from dewey_embed.files import json_crc, json_text, sealed, write_text
from dewey_embed.index.checksums import LEDGER_NAME, Ledger
from dewey_embed.single_vectors import SingleVector
from dewey_embed.storage import Address, open_place

FORMAT_VERSION = 3
FILE_NAME = "dewey.json"

PASSAGE_SPLITTER = "sentences"

INDEX_OPTIONS = EncodeOptions(chunk_tokens=(64,), chunk_overlap=(0,), splitter=PASSAGE_SPLITTER)
"""How documents are cut unless one says otherwise: passages of whole sentences."""

WINDOW = 2048
"""Tokens read at once unless one says otherwise: longer windows find no more under a title, and
take longer the longer they are (docs/log.md)."""

REMEDY = "restore the index from a copy, or index the documents again into another folder"
"""What is left to do where the truth itself is damaged."""


class _DamagedError(IndexStoreError):
    """The file of settings does not hold what was written to it."""


class IndexSettings(Settings):
    """What an index was made with; two indexes agree when all but the model's name is equal.

    `model` is the name to load the model by, with `single_vector`, `max_tokens` and
    `truncate_dim` as they were; `fingerprint` is that model's own. `window` is the most tokens
    that the model reads at once. `reads_titles` says that titles are read above their texts, as
    new indexes do with a model that knows titles; indexes of earlier versions go on not to.
    """

    format_version: int = FORMAT_VERSION
    model: str
    fingerprint: str
    single_vector: SingleVector | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    truncate_dim: int | None = Field(default=None, gt=0)
    embedding_dim: int = Field(gt=0)
    options: EncodeOptions = INDEX_OPTIONS
    window: int | None = Field(default=None, gt=0)
    reads_titles: bool = False

    def require_model(self, model: str, fingerprint: str, folder: Path) -> None:
        """Refuse a model, by name and fingerprint, that is not the one that made this index.

        Raises:
            IndexMismatchError: it is another; both are named.

        """
        if fingerprint != self.fingerprint:
            raise IndexMismatchError(
                f"index {folder} was made by model {self.model!r} (fingerprint "
                f"{self.fingerprint}), not by {model!r} (fingerprint {fingerprint}); "
                "their vectors cannot be compared: use the first, or index into another folder"
            )

    def require_options(self, options: EncodeOptions, window: int | None, folder: Path) -> None:
        """Refuse options, and a window, other than those that documents were encoded with.

        Raises:
            IndexMismatchError: they were cut with others; both are named.

        """
        ours = {**self.options.model_dump(), "window": self.window}
        theirs = {**options.model_dump(), "window": self.window if window is None else window}
        different = [key for key in ours if ours[key] != theirs[key]]
        if different:
            made = ", ".join(f"{key}={ours[key]!r}" for key in different)
            given = ", ".join(f"{key}={theirs[key]!r}" for key in different)
            raise IndexMismatchError(
                f"index {folder} was made with {made}, not with {given}; "
                "leave the option out to go on with the index's own, or index into another folder"
            )

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The settings of the index in a folder; `None` where there is none.

        Raises:
            IndexStoreError: the file is damaged, or of a newer Dewey.
            StorageError: the object storage cannot be reached.

        """
        path, ledger = folder / FILE_NAME, folder / LEDGER_NAME
        if isinstance(folder, Address):
            data = open_place(str(path)).read()
            return None if data is None else cls.from_json(data, path)
        try:
            kept = Ledger.read(ledger)
            copy = cls.parse(kept.facts["settings"], source=str(ledger)) if kept else None
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return copy
        except OSError as error:
            raise IndexStoreError(
                f"{error.filename} cannot be read ({error.strerror}): give yourself the right to "
                "read it, or choose another path"
            ) from None
        try:
            settings = cls.from_json(data, path)
        except _DamagedError as error:
            if copy is None:
                raise IndexStoreError(f"{error}; {REMEDY}") from None
            return copy
        if copy not in (None, settings):
            raise IndexStoreError(
                f"{path} is that of another index than {ledger.name} beside it; put the one that "
                "belongs there in its place, or remove it to have it made again"
            )
        return settings

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> Self:
        """The settings that `write` wrote to `path`.

        Raises:
            IndexStoreError: they are of another format.

        """
        try:
            values = json.loads(data)
            version = values["format_version"]
            crc = values.pop("crc", None)
        except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
            raise _DamagedError(f"{path} is damaged, or not the settings of an index") from None
        if version != FORMAT_VERSION and (crc is None or crc == json_crc(values)):
            raise IndexStoreError(
                f"index {path.parent} has format {version}, this Dewey reads {FORMAT_VERSION}: "
                "index the documents again into another folder, or use the Dewey that made it"
            )
        if crc != json_crc(values):
            raise _DamagedError(f"{path} is damaged (another checksum)")
        try:
            return cls.parse(values, source=str(path))
        except ConfigError as error:
            raise _DamagedError(str(error)) from None

    def write(self, folder: Path) -> None:
        """Write the settings into the folder, all of them or none."""
        write_text(folder / FILE_NAME, self.to_json(), sync=True)

    def to_json(self) -> str:
        """The settings as the file holds them, with their checksum."""
        return json_text(sealed(self.model_dump(mode="json")), indent=2)


def changed_options(
    own: EncodeOptions,
    chunk_tokens: int | Sequence[int] | None,
    chunk_overlap: int | Sequence[int] | None,
    splitter: str | None,
    overflow: str | None,
) -> EncodeOptions:
    """An index's own options with those given in their place.

    New sizes overlap by a quarter, and passages of whole sentences not at all.

    Raises:
        ConfigError: an impossible value.

    """
    values = own.model_dump()
    cut = splitter or own.splitter
    if cut != own.splitter and PASSAGE_SPLITTER in (cut, own.splitter):
        base = INDEX_OPTIONS if cut == PASSAGE_SPLITTER else EncodeOptions()
        values |= {"chunk_tokens": base.chunk_tokens, "chunk_overlap": base.chunk_overlap}
    if chunk_tokens is not None:
        sizes = (chunk_tokens,) if isinstance(chunk_tokens, int) else tuple(chunk_tokens)
        if sizes != own.chunk_tokens:
            overlaps = tuple(0 if cut == PASSAGE_SPLITTER else size // 4 for size in sizes)
            values |= {"chunk_tokens": sizes, "chunk_overlap": overlaps}
    if chunk_overlap is not None:
        one = isinstance(chunk_overlap, int)
        num = len(values["chunk_tokens"])
        values["chunk_overlap"] = (chunk_overlap,) * num if one else tuple(chunk_overlap)  # type: ignore[arg-type]
    given = {"splitter": splitter, "overflow": overflow}
    values |= {key: value for key, value in given.items() if value is not None}
    return EncodeOptions.parse(values, source="Index.open")
