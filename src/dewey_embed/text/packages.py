"""Formats packed in a ZIP archive: which one it holds, and its parts, within the limits."""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from dewey_embed.errors import ReadError
from dewey_embed.text.inputs import ReadLimits
from dewey_embed.text.markup import usable

MAX_INFLATION = 100
"""The limit for a part's size in packed sizes; people's texts are packed to a tenth."""
_MARKS_PER_TEXT = 4
"""The limit for a part's XML in bytes, for each byte of text: marks are most of it."""
_FORMATS = {
    "word/": "docx",
    "ppt/": "pptx",
    "xl/": "xlsx",
    "META-INF/container.xml": "epub",
    "content.xml": "opendocument",
}
"""Formats by a name, or the folder, of a part that only they have."""
_MIME_TYPES = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.": "opendocument",
}
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)
"""What is raised where a part of an archive is damaged; `ReadError` is among it."""
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_TITLE = "{http://purl.org/dc/elements/1.1/}title"


def packed_format(stream: IO[bytes]) -> str:
    """The name of the format that an archive holds; the stream is at its start after.

    It is nothing where the archive cannot be opened, which its reader explains.

    >>> import io
    >>> packed_format(io.BytesIO(b"no archive"))
    ''

    Raises:
        ReadError: it holds none of them.

    """
    try:
        with zipfile.ZipFile(stream) as package:
            names = package.namelist()
            if "mimetype" in names:
                with package.open("mimetype") as part:
                    mime_type = part.read(100)
                for known, name in _MIME_TYPES.items():
                    if mime_type.startswith(known):
                        return name
    except (*DAMAGE, OSError, NotImplementedError, RuntimeError):
        return ""
    finally:
        stream.seek(0)
    for start, name in _FORMATS.items():
        if any(each.startswith(start) for each in names):
            return name
    raise ReadError(
        "not an Office file, OpenDocument or book but another ZIP archive; "
        "unpack it and give the folder"
    )


@contextmanager
def opened(stream: IO[bytes], what: str) -> Iterator[zipfile.ZipFile]:
    """An archive, whose faults are named by `what` it should be.

    Raises:
        ReadError: it is damaged, or packed in another way.

    """
    try:
        with zipfile.ZipFile(stream) as package:
            yield package
    except (*DAMAGE, OSError) as error:
        if isinstance(error, ReadError):
            raise
        reason = f"not {what} that can be opened, or protected by a password ({error})"
        raise ReadError(reason) from None
    except (NotImplementedError, RuntimeError) as error:
        raise ReadError(f"{what} packed in a way that is not read ({error})") from None


def refuse_too_long(package: zipfile.ZipFile, names: Iterable[str], limits: ReadLimits) -> None:
    """Refuse parts that together unpack to more than the limit.

    Raises:
        ReadError: they do.

    """
    infos = [info for name in names if (info := package.NameToInfo.get(name))]
    size = sum(info.file_size for info in infos)
    is_bomb = size > MAX_INFLATION * sum(info.compress_size for info in infos)
    if size > limits.max_text_bytes * (1 if is_bomb else _MARKS_PER_TEXT):
        what = f"its {infos[0].filename}" if len(infos) == 1 else "it"
        raise ReadError(f"unpacked, {what} is {limits.too_long(size)}")


def part_bytes(package: zipfile.ZipFile, name: str, limits: ReadLimits) -> bytes:
    """The bytes of a part.

    Raises:
        ReadError: it unpacks to more than the limit.
        KeyError: there is no such part.

    """
    refuse_too_long(package, [name], limits)
    with package.open(name) as part:
        return part.read(package.getinfo(name).file_size)  # of more than it says, no more


def xml_part(package: zipfile.ZipFile, name: str, limits: ReadLimits) -> Any:
    """The root element of a part, with the namespaces of strict Office files as the usual ones.

    Raises:
        ReadError: it is damaged, or unpacks to more than the limit.

    """
    from lxml import etree

    data = _STRICT.sub(
        rb"http://schemas.openxmlformats.org/\1/2006/\2", part_bytes(package, name, limits)
    )
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        if not error.lineno:  # how lxml says that it was refused memory
            raise MemoryError from None
        raise ReadError(f"damaged: {name}: {error}") from None


def related_parts(
    package: zipfile.ZipFile, part: str, limits: ReadLimits
) -> dict[str, tuple[str, str]]:
    """The kind and name of each part that a part of an Office file refers to, by its id there."""
    folder, name = posixpath.split(part)
    relations = f"{folder}/_rels/{name}.rels"
    if relations not in package.namelist():
        return {}
    found = {}
    for each in xml_part(package, relations, limits):
        if each.get("TargetMode") != "External":
            target = posixpath.normpath(posixpath.join("/", folder, each.get("Target", "")))
            kind = each.get("Type", "").rpartition("/")[2]
            found[each.get("Id", "")] = (kind, target.removeprefix("/"))
    return found


def own_title(package: zipfile.ZipFile, part: str, limits: ReadLimits) -> str:
    """The title in the part with a file's properties, or nothing."""
    try:
        found = xml_part(package, part, limits).find(f".//{_TITLE}")
    except DAMAGE:
        return ""
    return "" if found is None else usable(found.text or "")


def counted(package: zipfile.ZipFile, kinds: Mapping[str, str]) -> Counter[str]:
    """The number of parts of each kind, by how their names start in lower case."""
    return Counter(
        kind
        for name in package.namelist()
        for start, kind in kinds.items()
        if name.lower().startswith(start) and not name.endswith(("/", ".rels"))
    )
