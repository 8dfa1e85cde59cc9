"""Files that clients send: the names under which they are kept while they are read."""

from __future__ import annotations

MAX_NAME_BYTES = 200
"""Bytes of a file's name that are kept, the last ones: file systems take 255."""


def file_name(given: str, *, otherwise: str) -> str:
    """A name for an uploaded file within a folder of its own: it tells the format and the title.

    >>> file_name("../../contracts/lease.pdf", otherwise="document")
    'lease.pdf'
    >>> file_name("..", otherwise="document")
    'document'
    """
    name = given.replace("\\", "/").rpartition("/")[2]
    name = "".join(each for each in name if each.isprintable() and each != "\ufffd")
    kept = name.encode("utf-8", "ignore")[-MAX_NAME_BYTES:].decode("utf-8", "ignore")
    return kept.lstrip(".- ") or otherwise
