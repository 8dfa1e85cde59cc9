"""`dewey.json`: which model made an index, and how its documents were cut."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field

from dewey_embed.config import EncodeOptions, Settings
from dewey_embed.errors import ConfigError, IndexMismatchError, IndexStoreError
from dewey_embed.types import SingleVector

FORMAT_VERSION = 1
FILE_NAME = "dewey.json"


class IndexSettings(Settings):
    """What an index was made with; two indexes agree when all but the model's name is equal.

    `model` is the name to load the model by, with `single_vector`, `max_tokens` and
    `truncate_dim` as they were; `fingerprint` is that model's own.
    """

    format_version: int = FORMAT_VERSION
    model: str
    fingerprint: str
    single_vector: SingleVector | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    truncate_dim: int | None = Field(default=None, gt=0)
    embedding_dim: int = Field(gt=0)
    options: EncodeOptions = EncodeOptions()

    def require_model(self, model: str, fingerprint: str, folder: Path) -> None:
        """Nothing, if the model of that name and fingerprint is the one that made this index.

        Raises:
            IndexMismatchError: it is another; both are named.

        """
        if fingerprint != self.fingerprint:
            raise IndexMismatchError(
                f"index {folder} was made by model {self.model!r} (fingerprint "
                f"{self.fingerprint}), not by {model!r} (fingerprint {fingerprint}); "
                "their vectors cannot be compared: use the first, or index into another folder"
            )

    def require_options(self, options: EncodeOptions, folder: Path) -> None:
        """Nothing, if documents were cut with these options.

        Raises:
            IndexMismatchError: they were cut with others; both are named.

        """
        ours, theirs = self.options.model_dump(), options.model_dump()
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

        """
        path = folder / FILE_NAME
        try:
            values = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise IndexStoreError(f"{path} cannot be read ({error}); index again") from None
        version = values.get("format_version") if isinstance(values, dict) else None
        if not isinstance(version, int):
            raise IndexStoreError(f"{path} holds no format_version: it is not a Dewey index")
        if version != FORMAT_VERSION:
            raise IndexStoreError(
                f"index {folder} has format {version}, this Dewey reads {FORMAT_VERSION}; "
                "upgrade dewey-embed, or index again into another folder"
            )
        try:
            return cls.parse(values, source=str(path))
        except ConfigError as error:
            raise IndexStoreError(f"{error}; index again into another folder") from None

    def write(self, folder: Path) -> None:
        """Nothing; the folder then holds these settings, whole or not at all."""
        draft = folder / f".{FILE_NAME}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / FILE_NAME)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def changed_options(
    own: EncodeOptions,
    chunk_tokens: int | Sequence[int] | None,
    chunk_overlap: int | Sequence[int] | None,
    splitter: str | None,
    overflow: str | None,
) -> EncodeOptions:
    """An index's own options with those given in their place; new sizes overlap by a quarter.

    Raises:
        ConfigError: an impossible value.

    """
    values = own.model_dump()
    if chunk_tokens is not None:
        sizes = (chunk_tokens,) if isinstance(chunk_tokens, int) else tuple(chunk_tokens)
        if sizes != own.chunk_tokens:
            values |= {"chunk_tokens": sizes, "chunk_overlap": tuple(s // 4 for s in sizes)}
    if chunk_overlap is not None:
        one = isinstance(chunk_overlap, int)
        num = len(values["chunk_tokens"])
        values["chunk_overlap"] = (chunk_overlap,) * num if one else tuple(chunk_overlap)  # type: ignore[arg-type]
    given = {"splitter": splitter, "overflow": overflow}
    values |= {key: value for key, value in given.items() if value is not None}
    return EncodeOptions.parse(values, source="Index.open")
