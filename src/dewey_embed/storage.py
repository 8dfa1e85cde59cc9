"""Folders on this machine and on object storage, under one kind of name.

A place is a path, or an address such as `s3://bucket/folder`. Credentials, regions and endpoints
of S3 come from the variables that its other tools read (`AWS_ACCESS_KEY_ID`, `AWS_REGION`,
`AWS_ENDPOINT_URL`, …). What cannot be looked at is an error, and never taken for missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from dewey_embed.errors import ConfigError, DeweyError, StorageError, first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

CONNECT_S = 5.0
"""Seconds until a server that does not answer is given up; each call tries three times."""

REQUEST_S = 60.0

BUCKETED = ("s3", "gcs", "abfs")
"""Kinds of file systems whose addresses begin with a bucket, which must be there."""


class Address(PosixPath):
    """An address such as `s3://bucket/folder`, where paths of folders are taken.

    It has the names and parts of a path. Nothing is there on this machine.

    >>> str(Address("s3://bucket/my.index") / "dewey.json")
    's3://bucket/my.index/dewey.json'
    """

    def __str__(self) -> str:
        return _ONE_SLASH.sub(r"\1//", super().__str__())


_ONE_SLASH = re.compile(r"^([a-z][a-z0-9+.-]*:)/(?!/)")


def folder_named(name: str) -> Path:
    """The folder of a name: a path of this machine, or an address."""
    return Address(name) if is_address(name) else Path(name)


class Place(NamedTuple):
    """A folder or file: its file system, and the path in it."""

    name: str
    system: FileSystem
    path: str

    def below(self, name: str) -> Place:
        """A place within this folder."""
        return Place(f"{self.name.rstrip('/')}/{name}", self.system, f"{self.path}/{name}")

    def info(self) -> FileInfo:
        """What is there: its type (`NotFound` where nothing is), size and time of change.

        Raises:
            StorageError: it cannot be looked at, or its bucket is not there.

        """
        with looking(self.name):
            found = self.system.get_file_info(self.path)
        if found.type.name == "NotFound":
            self._require_bucket()
        return found

    @property
    def bucket(self) -> str:
        """The bucket of an address; nothing where there are none."""
        return self.path.split("/", 1)[0] if self.system.type_name in BUCKETED else ""

    def _require_bucket(self) -> None:
        """Refuse a place in a bucket that is not there, which would else read as an empty one.

        Raises:
            StorageError: it is not there, or cannot be looked at.

        """
        if not self.bucket:
            return
        with looking(self.name):
            found = self.system.get_file_info(self.bucket)
        if found.type.name == "NotFound":
            server = f" at {endpoint}" if (endpoint := _endpoint()) else ""
            raise StorageError(
                f"{self.name}: the bucket {self.bucket!r} does not exist{server}; make it, or "
                "check the address, AWS_ENDPOINT_URL and AWS_REGION"
            )

    def exists(self) -> bool:
        """Whether there is anything.

        Raises:
            StorageError: it cannot be looked at.

        """
        found: bool = self.info().type.name != "NotFound"
        return found

    def files(self) -> list[FileInfo]:
        """The files below this folder, in the order of their paths; none where it is missing.

        Raises:
            StorageError: it cannot be looked at, or its bucket is not there.

        """
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, recursive=True, allow_not_found=True)
        with looking(self.name):
            found = self.system.get_file_info(selector)
        if not found:
            self._require_bucket()
        return sorted((each for each in found if each.is_file), key=lambda each: each.path)

    def read(self) -> bytes | None:
        """The bytes of a file; `None` where there is none.

        Raises:
            StorageError: it cannot be read.

        """
        if not self.info().is_file:
            return None
        with looking(self.name), self.system.open_input_stream(self.path) as stream:
            data: bytes = stream.read()
        return data

    def write(self, data: bytes) -> None:
        """Write a file; on object storage it appears complete or not at all.

        Raises:
            StorageError: it cannot be written.

        """
        with looking(self.name), self.system.open_output_stream(self.path) as stream:
            stream.write(data)


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether a name is an address on object storage, and no path of this machine."""
    return "://" in os.fspath(name)


def open_place(name: str) -> Place:
    """The place of a path or an address; nothing is looked up yet.

    Raises:
        ConfigError: the address is of no kind that is known.

    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem, LocalFileSystem, S3FileSystem

    if not is_address(name):
        return Place(name, LocalFileSystem(), os.path.abspath(name))
    parts = urlsplit(name)
    path = f"{parts.netloc}{parts.path}".rstrip("/")
    if parts.scheme == "s3":
        if not parts.netloc:
            raise ConfigError(f"{name}: names no bucket; give s3://bucket/folder")
        return Place(name, S3FileSystem(**_s3_options()), path)
    try:
        system, path = FileSystem.from_uri(name)
    except (ArrowException, ValueError, OSError) as error:
        reason = first_line(error)
        raise ConfigError(f"{name}: is no address that can be opened ({reason})") from None
    return Place(name, system, path)


def _s3_options() -> dict[str, Any]:
    """The options of pyarrow's S3: another endpoint than Amazon's, and bounded waiting."""
    from pyarrow.fs import AwsStandardS3RetryStrategy

    options: dict[str, Any] = {
        "connect_timeout": CONNECT_S,
        "request_timeout": REQUEST_S,
        "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=3),
    }
    if endpoint := _endpoint():
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return options


def _endpoint() -> str:
    """The address of another S3 server than Amazon's, or nothing."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def lance_options(name: str) -> dict[str, str]:
    """What Lance and LanceDB need to open an address; they read the other variables themselves."""
    if not name.startswith("s3://"):
        return {}
    options = {"connect_timeout": f"{CONNECT_S:g}s", "client_max_retries": "3"}
    if endpoint := _endpoint():
        options["aws_endpoint"] = endpoint
        options["allow_http"] = str(endpoint.startswith("http://")).lower()
    return options


@contextmanager
def looking(name: str) -> Iterator[None]:
    """Name the place in errors of its storage.

    Raises:
        StorageError: something could not be read or written.

    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{name} cannot be reached: {_reason(error)}; check the address, the network and the "
            "credentials"
            if is_address(name)
            else f"{name} cannot be read or written: {_reason(error)}"
        ) from error
    except DeweyError:
        raise
    except ValueError as error:  # Arrow's and Lance's, of bytes that are not theirs
        reason = first_line(error)
        raise StorageError(
            f"{name} is damaged or was not written completely: {reason}; remove it, or give "
            "another path"
        ) from error


def _reason(error: OSError) -> str:
    """What went wrong, in one line."""
    return error.strerror or first_line(error)
