"""Real documents made long: each joined with others of its corpus up to a length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from random import Random

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.text.tokenizer import Tokenizer

SEPARATOR = "\n\n"

MIN_DOCUMENTS = 8
"""A length into which fewer documents fit is left out: their figures would mean nothing."""


class JoinedTasks:
    """A corpus → one task for each length, with the same answering documents and queries.

    An answering document is the only relevant one of a query and fits into the shortest of
    `lengths`, which are the requested lengths into which at least eight documents fit. The
    documents around it are relevant to none of the queries. Its id and the seed decide their order
    and its depth, for all lengths alike.
    """

    def __init__(
        self,
        data: RetrievalData,
        tokenizer: Tokenizer,
        *,
        lengths: Sequence[int],
        num_documents: int,
        seed: int,
    ) -> None:
        """Choose the documents; lengths are in tokens of the texts themselves.

        Raises:
            TaskError: too few documents answer a query and fit, or there are no others to join.

        """
        self.data, self.tokenizer, self.seed = data, tokenizer, seed
        self._sizes: dict[str, int] = {}
        alone = {next(iter(gains)) for gains in data.qrels.values() if len(gains) == 1}
        names = sorted(name for name in alone if self._size(name))
        fitting = {
            length: [name for name in names if self._size(name) <= length]
            for length in sorted(lengths)
        }
        self.lengths = [length for length in fitting if len(fitting[length]) >= MIN_DOCUMENTS]
        if not self.lengths:
            raise TaskError(
                f"{data.name}: {len(fitting[max(lengths)])} documents are the only relevant one of "
                f"a query and have at most {max(lengths):,} tokens; {MIN_DOCUMENTS} are needed"
            )
        shortest = fitting[self.lengths[0]]
        kept = Random(seed).sample(shortest, min(num_documents, len(shortest)))
        self.answers = kept
        self.qrels = {
            query: dict(gains)
            for query, gains in data.qrels.items()
            if len(gains) == 1 and set(kept).issuperset(gains)
        }
        self.others = sorted(set(data.documents) - set(kept))
        if not self.others:
            raise TaskError(
                f"{data.name}: all {len(kept)} documents answer a query; there is none to join "
                "them with. Take fewer (--tokens-per-length), or take a larger corpus"
            )

    def at(self, length: int) -> RetrievalData:
        """The task whose documents all have `length` tokens, or a few less."""
        return RetrievalData(
            name=f"{self.data.name}-{length}",
            documents={name: self._join(name, length) for name in self.answers},
            queries={query: self.data.queries[query] for query in self.qrels},
            qrels=self.qrels,
        )

    @property
    def num_other_tokens(self) -> int:
        """Tokens of all documents that the answering ones are joined with."""
        return sum(self._size(name) for name in self.others)

    def _join(self, answer: str, length: int) -> str:
        """The answering document among others."""
        rng = Random(f"{self.seed} {answer}")
        order = rng.sample(self.others, len(self.others))
        depth = rng.random()
        room = length - self._size(answer)
        while True:
            parts = self._fill(order, room)
            parts.insert(round(depth * len(parts)), self.data.documents[answer])
            text = SEPARATOR.join(parts)
            # Tokenizers may count joined texts a little differently from single ones.
            surplus = self._count(text) - length
            if surplus <= 0:
                return text
            room -= surplus

    def _fill(self, order: Sequence[str], room: int) -> list[str]:
        """Documents of `room` tokens together, the last one cut."""
        parts: list[str] = []
        for name in cycle(order):
            if room <= 0:
                break
            text = self.data.documents[name]
            if self._size(name) > room:
                tokens = self.tokenizer.encode([text])[0]
                text = text[: int(tokens.offsets[room - 1, 1])]
            parts.append(text)
            room -= max(self._size(name), 1)
        return parts

    def _size(self, name: str) -> int:
        """Tokens of a document."""
        if name not in self._sizes:
            self._sizes[name] = self._count(self.data.documents[name])
        return self._sizes[name]

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode([text])[0])
