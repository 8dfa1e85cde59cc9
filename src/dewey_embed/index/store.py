"""The tables of an index: `documents` and `chunks` in LanceDB, under one lock for writers.

A group of documents is written in two commits: its chunks, then its rows in `documents`. The
second is what counts: chunks whose document's hash is in no row of `documents` are leftovers of
a run that ended early (or of a version since replaced), which readers pass over and writers
sweep. So an index reads the same before and after any moment at which a run may be killed.

Readers take a `Snapshot`, a pair of table versions that belong together, and wait for nobody.
The layout is written down in docs/index-format.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.errors import DeweyError, IndexStoreError, StorageError, first_line
from dewey_embed.files import (
    boot_id,
    cache_folder,
    drafts_of,
    locked,
    remove_drafts,
    write_text,
)
from dewey_embed.index.checksums import LEDGER_NAME, Ledger
from dewey_embed.index.settings import FILE_NAME, REMEDY, IndexSettings
from dewey_embed.index.tables import chunks_schema, documents_schema, text_crc, windows_field
from dewey_embed.index.writer import Writer, writing
from dewey_embed.storage import Address, Place, lance_options, open_place

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table
    from pyarrow.fs import FileInfo

LOCK_NAME = "dewey.lock"
HOLDER_NAME = "dewey.pid"
"""The file locked by the one process that writes, and the one that says which process that is."""
LOCK_NAMES = (LOCK_NAME, HOLDER_NAME)

BOOT_NAME = "dewey.boot"
"""The file that says during which start of the system the tables were last written."""

HINT_NAME = "latest_version_hint.json"
"""Lance's note of the latest version of a table, which it does without."""

_LARGEST = 2**64 - 1


class Store:
    """An index in a folder: its settings, its snapshots for readers, its writer."""

    def __init__(self, folder: Path, settings: IndexSettings) -> None:
        self.folder = folder
        self.settings = settings

    @property
    def layouts(self) -> Path:
        """The folder that holds what is laid out for searching."""
        return self.folder

    @staticmethod
    def of(folder: Path, settings: IndexSettings) -> Store:
        """The index of these settings in a folder here, or at an address."""
        return (RemoteStore if isinstance(folder, Address) else Store)(folder, settings)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """The index in a folder, or at an address.

        Raises:
            IndexStoreError: there is none, or it is damaged.
            StorageError: the object storage cannot be reached.

        """
        settings = IndexSettings.read(folder)
        if settings is None and isinstance(folder, Address):
            place = open_place(str(folder))
            what = (
                f"holds no {FILE_NAME}: it is no Dewey index"
                if place.exists()
                else f"is not there: the bucket {place.bucket!r} holds nothing under this name"
            )
            raise IndexStoreError(
                f"{folder} {what}; check the address, or make an index with: "
                f"dewey encode DOCS --output {folder} --ray"
            )
        if settings is None:
            what = "is no Dewey index" if folder.exists() else "does not exist"
            raise IndexStoreError(
                f"{folder} {what}; make one with: dewey index DOCS --index {folder}"
            )
        return cls.of(folder, settings)

    @cached_property
    def _database(self) -> DBConnection:
        import lancedb

        return lancedb.connect(str(self.folder))

    def state(self) -> State | None:
        """The latest state of both tables; `None` before the first writer.

        Raises:
            IndexStoreError: the tables cannot be read, or versions that were written are missing.

        """
        with reading(self.folder):
            if not self._has_table("documents"):
                self._refuse_gone()
                return None
            documents = self._database.open_table("documents").version
            return self._state((documents, self._database.open_table("chunks").version))

    def listing(self) -> list[tuple[str, int, int]] | None:
        """Names, sizes and times of the tables' versions; `None` where they cannot be listed.

        While it stands still, so does `state`, which takes a hundred times as long to find out.
        """
        found = []
        try:
            for name in ("documents", "chunks"):
                for path in (self.folder / f"{name}.lance" / "_versions").iterdir():
                    status = path.stat()
                    found.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            return None
        return sorted(found)

    def _state(self, versions: tuple[int, int]) -> State:
        """The state of both tables at these versions, with a digest of what lists their files."""
        crc = 0
        for name, version in zip(("documents", "chunks"), versions, strict=True):
            folder = self.folder / f"{name}.lance" / "_versions"
            # Lance counts down in names, so that the latest version is listed first.
            names = (f"{_LARGEST - version}.manifest", f"{version}.manifest")
            path = next((folder / each for each in names if (folder / each).exists()), None)
            crc = zlib.crc32(path.read_bytes() if path else b"", crc)
        return State(*versions, crc)

    def snapshot(self) -> Snapshot | None:
        """The newest pair of versions that belong together; `None` before the first writer.

        Raises:
            IndexStoreError: it changes faster than it can be read, or is damaged.

        """
        if self._went_down():
            with suppress(IndexStoreError), _locked(self.folder), writing(self.folder):
                self._forget_unflushed()
        for _ in range(200):
            # Before the tables are opened, whose versions are then no older than what it lists.
            written = self._verify()
            with reading(self.folder):
                if not self._has_table("documents"):
                    self._refuse_gone()
                    return None
                documents = self._database.open_table("documents")
                chunks = self._database.open_table("chunks")
                versions = documents.version, chunks.version
                # Chunks are swept only after a newer `documents`: if that stands still, they fit.
                if self._database.open_table("documents").version == versions[0]:
                    self._refuse_older(versions, written)
                    return Snapshot(self.folder, documents, chunks, self._state(versions))
            time.sleep(0.01)
        raise IndexStoreError(f"index {self.folder} changes too fast to be read; try again")

    def _verify(self) -> tuple[int, int]:
        """The versions of the tables that the last writer left, once their files are as it did.

        Raises:
            IndexStoreError: a file is damaged.

        """
        with reading(self.folder):
            ledger = Ledger.read(self.folder / LEDGER_NAME)
            if ledger is None:
                return 0, 0
            fault = ledger.damaged(self.folder)
        if fault:
            raise IndexStoreError(f"index {self.folder} is damaged: {fault}; {REMEDY}")
        documents, chunks = ledger.facts["versions"]
        return documents, chunks

    def _refuse_older(self, versions: tuple[int, int], written: tuple[int, int]) -> None:
        """Raise where the latest version of a table is gone, and an older one is read for it."""
        if any(at < was for at, was in zip(versions, written, strict=True)):
            raise IndexStoreError(
                f"index {self.folder} is damaged: the latest version of a table is missing; "
                f"{REMEDY}"
            )

    def _has_table(self, name: str) -> bool:
        """Whether a table has a first version; a run killed before that leaves no data.

        Raises:
            IndexStoreError: its folder cannot be looked into, or holds data without a version.

        """
        folder = self.folder / f"{name}.lance"
        if any(path.suffix == ".manifest" for path in _listing(folder / "_versions")):
            return True
        ledger = Ledger.read(self.folder / LEDGER_NAME)
        known = ledger is not None or any(_listing(self.folder / "derived"))
        if known or _listing(folder / "data"):
            raise IndexStoreError(
                f"index {self.folder} is damaged: {folder} has no version of its table any more; "
                f"{REMEDY}"
            )
        return False

    def _refuse_gone(self) -> None:
        """Raise where there is no folder any more: that is no empty index."""
        if not self.folder.exists():
            raise IndexStoreError(
                f"index {self.folder} does not exist any more; put it back, or make it again"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other writer out meanwhile; the folder is made if it is missing.

        Raises:
            IndexStoreError: another process is writing, or the folder cannot be made.

        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexStoreError(
                f"{self.folder} cannot be made ({error.strerror}); choose another path"
            ) from None
        with _locked(self.folder):
            yield

    @contextmanager
    def writer(self, *, is_alone: bool = False) -> Iterator[Writer]:
        """The one writer of this index, which is made if there is none yet.

        With `is_alone` the caller keeps others out.

        Raises:
            IndexStoreError: another process is writing, the folder holds something else, or the
                index is damaged.
            IndexMismatchError: another process has made it with other settings meanwhile.

        """
        _refuse_foreign(self.folder)
        with nullcontext() if is_alone else self.alone():
            settings = IndexSettings.read(self.folder)
            if settings is None:
                self.settings.write(self.folder)
            else:
                settings.require_model(self.settings.model, self.settings.fingerprint, self.folder)
                settings.require_options(self.settings.options, self.settings.window, self.folder)
            width = self.settings.embedding_dim
            with writing(self.folder):
                self._forget_unflushed()
            written = self._verify()
            with reading(self.folder):
                # `chunks` first: where there is a `documents` there are chunks.
                chunks = self._table("chunks", chunks_schema(width))
                documents = self._table("documents", documents_schema(width))
                if windows_field().name not in documents.schema.names:
                    documents.add_columns(windows_field())
                self._refuse_older((documents.version, chunks.version), written)
                if IndexSettings.read(self.folder) is not None:
                    self._heal_settings()
                recorded = self.settings.model_dump(mode="json")
                writer = Writer(self.folder, documents, chunks, recorded)
            with writing(self.folder):
                if Ledger.read(self.folder / LEDGER_NAME) is None:
                    writer.record()
                yield writer

    def _went_down(self) -> bool:
        """Whether the system was started anew since the tables were last written."""
        try:
            before = (self.folder / BOOT_NAME).read_text("utf-8", "replace").strip()
        except OSError:
            return False
        return boot_id() not in (None, before)

    def _forget_unflushed(self) -> None:
        """Go back to the versions that were last recorded, if the system went down since.

        What was written after them may not have reached the disk. Within one start of the system
        it did, however a run ended.
        """
        path, now, went_down = self.folder / BOOT_NAME, boot_id(), self._went_down()
        ledger = Ledger.read(self.folder / LEDGER_NAME)
        if went_down and ledger is not None:
            recorded = zip(("documents", "chunks"), ledger.facts["versions"], strict=True)
            for name, version in recorded:
                folder = self.folder / f"{name}.lance" / "_versions"
                (folder / HINT_NAME).unlink(missing_ok=True)
                for manifest in folder.glob("[0-9]*.manifest"):
                    number = int(manifest.stem)
                    if min(number, _LARGEST - number) > version:
                        manifest.unlink()
        if now is not None and (went_down or not path.exists()):
            write_text(path, f"{now}\n", sync=True)

    def _heal_settings(self) -> None:
        """Write the file of settings again where it is damaged and was read from elsewhere."""
        path = self.folder / FILE_NAME
        try:
            IndexSettings.from_json(path.read_bytes(), path)
        except (IndexStoreError, FileNotFoundError):
            self.settings.write(self.folder)

    def _table(self, name: str, schema: pa.Schema) -> Table:
        """A table, made if missing."""
        if self._has_table(name):
            return self._database.open_table(name)
        folder = self.folder / f"{name}.lance"
        if folder.exists():  # a run was killed while it made the table: nothing is in it yet
            shutil.rmtree(folder)
        return self._database.create_table(name, schema=schema)


class RemoteStore(Store):
    """An index on object storage: LanceDB reads its tables there, layouts are kept on this machine.

    It can only be read. Damage is found by the rows' own checksums; those of files would cost a
    download of all of them.
    """

    @property
    def layouts(self) -> Path:
        """A folder of this address in the user's cache."""
        cache = cache_folder()
        if cache is None:
            return self.folder  # nowhere, so that they are made in a temporary folder
        name = hashlib.sha256(f"{os.environ.get('AWS_ENDPOINT_URL')} {self.folder}".encode())
        folder = cache / "indexes" / name.hexdigest()[:32]
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    @cached_property
    def _place(self) -> Place:
        return open_place(str(self.folder))

    @cached_property
    def _database(self) -> DBConnection:
        import lancedb

        name = str(self.folder)
        return lancedb.connect(name, storage_options=lance_options(name))

    def _has_table(self, name: str) -> bool:
        return any(each.path.endswith(".manifest") for each in self._versions(name))

    def _versions(self, name: str) -> list[FileInfo]:
        return self._place.below(f"{name}.lance/_versions").files()

    def _refuse_gone(self) -> None:
        if IndexSettings.read(self.folder) is None:
            raise IndexStoreError(
                f"index {self.folder} does not exist any more; put it back, or make it again"
            )

    def listing(self) -> list[tuple[str, int, int]] | None:
        """Names, sizes and times of the tables' versions; `None` where they cannot be listed."""
        try:
            found = [each for name in ("documents", "chunks") for each in self._versions(name)]
        except StorageError:
            return None
        return sorted((each.path, each.size, each.mtime_ns) for each in found)

    def _state(self, versions: tuple[int, int]) -> State:
        crc = 0
        for name, version in zip(("documents", "chunks"), versions, strict=True):
            for number in (_LARGEST - version, version):
                manifest = self._place.below(f"{name}.lance/_versions/{number}.manifest")
                if (data := manifest.read()) is not None:
                    crc = zlib.crc32(data, crc)
                    break
        return State(*versions, crc)

    def _verify(self) -> tuple[int, int]:
        return 0, 0

    @contextmanager
    def writer(self, *, is_alone: bool = False) -> Iterator[Writer]:
        """Refuse to write.

        Raises:
            IndexStoreError: always.

        """
        raise IndexStoreError(
            f"index {self.folder} can only be read there; change it with dewey encode --ray, or "
            "where it was made, and copy its folder (docs/cluster.md)"
        )
        yield


def _listing(folder: Path) -> list[Path]:
    """What a folder holds; nothing where it is missing.

    Raises:
        IndexStoreError: it cannot be looked into.

    """
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise IndexStoreError(
            f"{folder} cannot be looked into ({error.strerror}), so nobody knows what it holds: "
            "give yourself the right to read it"
        ) from None


def _refuse_foreign(folder: Path) -> None:
    """Raise unless a folder is missing, empty, an index, or the beginning of one."""
    refuse_file(folder)
    paths = _listing(folder)
    names = {path.name for path in paths}
    begun = {*LOCK_NAMES, BOOT_NAME, f".{FILE_NAME}.tmp"}
    if paths:
        drafts = (*drafts_of(folder / FILE_NAME), *drafts_of(folder / BOOT_NAME))
        begun |= {draft.name for draft in drafts}
    if not names & {FILE_NAME, LEDGER_NAME} and names - begun:
        raise IndexStoreError(
            f"{folder} holds other files and no {FILE_NAME}: it is no Dewey index; "
            "choose an empty or a new folder"
        )


def refuse_file(folder: Path) -> None:
    """Refuse a file in place of an index's folder.

    Raises:
        IndexStoreError: there is one, or the path cannot be looked at.

    """
    if isinstance(folder, Address):
        return
    try:
        is_file = folder.exists() and not folder.is_dir()
    except OSError as error:
        raise IndexStoreError(
            f"{folder} cannot be looked at ({error.strerror}); choose another path"
        ) from None
    if is_file:
        raise IndexStoreError(f"{folder} is a file; an index is a folder: choose another path")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The writer's lock, which the system lets go of when the process ends, however it ends."""
    holder = folder / HOLDER_NAME
    stack = ExitStack()
    try:
        stack.enter_context(locked(folder / LOCK_NAME))
    except BlockingIOError:
        try:
            name = holder.read_text("utf-8", "replace").strip() or "unknown"
        except OSError:
            name = "unknown"
        raise BusyError(
            f"index {folder} is being written by another process (pid {name}); "
            "wait until it is done, or stop it"
        ) from None
    except OSError as error:
        raise IndexStoreError(
            f"index {folder} cannot be written ({error.strerror or error}): give yourself the "
            "right to write into it"
        ) from None
    with stack:
        remove_drafts(folder / FILE_NAME)
        remove_drafts(folder / LEDGER_NAME)
        with suppress(OSError):  # it only says who writes
            holder.write_text(f"{os.getpid()}\n", "utf-8")
        yield


class BusyError(IndexStoreError):
    """Another process is writing the index."""


class UnreadError(IndexStoreError):
    """The disk or the database did not give what was asked for; a newer version may be there."""


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what the disk and the database raise into one error that names the index.

    Raises:
        UnreadError: something could not be read.

    """
    try:
        yield
    except DeweyError:
        raise
    except Exception as error:
        raise _unread(folder, error) from error
    except BaseException as error:
        # What the database's own code, in Rust, raises where it did not foresee such bytes.
        if type(error).__name__ != "PanicException":
            raise
        raise _unread(folder, error) from None


def _unread(folder: Path, error: BaseException) -> UnreadError:
    if isinstance(error, PermissionError):
        reason, remedy = f"{error.filename}: {error.strerror}", "give yourself the right to read it"
    else:
        reason = first_line(error)
        remedy = REMEDY
    return UnreadError(f"index {folder} cannot be read: {reason}; {remedy}")


class State(NamedTuple):
    """Versions of both tables, and a digest by which those of another index are told apart."""

    documents: int
    chunks: int
    crc: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The two tables at versions that belong together: every document has its chunks."""

    folder: Path
    documents: Table
    chunks: Table
    state: State

    def texts(
        self, row_ids: Sequence[int], beside: Sequence[str] = ()
    ) -> dict[int, dict[str, Any]]:
        """The documents' texts by row id, with the columns asked for beside them.

        Raises:
            IndexStoreError: a text is not the one that was written.

        """
        rows = self.rows(row_ids, ["id", "text", "text_crc", *beside])
        for row in rows:
            if text_crc(row["text"]) != row["text_crc"]:
                raise IndexStoreError(
                    f"index {self.folder} is damaged: the text of document {row['id']!r} is not "
                    f"the one that was indexed; {REMEDY}"
                )
        return {row["_rowid"]: row for row in rows}

    def rows(self, row_ids: Sequence[int], columns: list[str]) -> list[dict[str, Any]]:
        """Rows of `documents` with the columns asked for and `_rowid`, in no promised order."""
        return self._taken(self.documents, row_ids, columns).to_pylist() if row_ids else []

    def chunk_rows(self, row_ids: Sequence[int], columns: list[str]) -> pa.Table:
        """Rows of `chunks` with the columns asked for and `_rowid`, in no promised order."""
        return self._taken(self.chunks, row_ids, columns)

    def _taken(self, table: Table, row_ids: Sequence[int], columns: list[str]) -> pa.Table:
        with reading(self.folder):
            query = table.take_row_ids([int(row) for row in row_ids])
            return query.select(columns).with_row_id().to_arrow()
