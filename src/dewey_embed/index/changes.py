"""What of the documents given is new or changed, in groups that a killed run would fill again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dewey_embed.index.records import content_hash, storable
from dewey_embed.types import Document

GROUP_CHARS = 400_000
"""A group holds at most so many characters, or one document: what a killed run may lose."""

Group = list[tuple[Document, str]]


class Changes:
    """Counts of what was seen, and the groups of what must be encoded.

    `hashes` is what the index holds, id → hash, while it is written to. `repeated` lists ids that
    came again with another content; the first is kept.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._seen: dict[str, str] = {}
        self.num_added = 0
        self.num_changed = 0
        self.num_unchanged = 0
        self.repeated: list[Document] = []

    def __contains__(self, document_id: str) -> bool:
        return document_id in self._seen

    def groups(
        self, documents: Iterable[Document], max_chars: int = GROUP_CHARS
    ) -> Iterator[Group]:
        """New and changed documents with their hashes, in order, filled up to `max_chars`.

        Greedy and in the order given: whatever has been committed of these groups, in order, the
        rest are the same groups when it is run again, and so get the same vectors, bit for bit.
        """
        group: Group = []
        size = 0
        for document, digest in self._missing(documents):
            if group and size + len(document.text) > max_chars:
                yield group
                group, size = [], 0
            group.append((document, digest))
            size += len(document.text)
        if group:
            yield group

    def _missing(self, documents: Iterable[Document]) -> Iterator[tuple[Document, str]]:
        """Documents that the index does not hold as they are, each id once."""
        for given in documents:
            document = storable(given)
            digest = content_hash(document)
            if document.id in self._seen:
                if self._seen[document.id] != digest:
                    self.repeated.append(document)
                continue
            self._seen[document.id] = digest
            held = self._hashes.get(document.id)
            if held == digest:
                self.num_unchanged += 1
                continue
            self.num_added += held is None
            self.num_changed += held is not None
            yield document, digest
