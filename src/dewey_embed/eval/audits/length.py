"""`dewey audit length`: how well documents are found as they grow from 1K to 128K tokens.

The same questions at every length, about the same few documents; what grows is the text around
the answer. So a fall is the length's doing: that of the pass, and that of the other text, with
which an answer can be confused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.eval.audits.joined import MIN_DOCUMENTS, JoinedTasks
from dewey_embed.eval.audits.length_findings import MODES, Point, to_findings
from dewey_embed.eval.audits.vectors import VectorCache
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.generated import passkey
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.scores import interval, query_scores
from dewey_embed.progress import Advance, progress_bar

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
MIN_LENGTH = 64
TOKENS_PER_LENGTH = 2**20
CACHE = Path("~/.cache/dewey-embed/audits")


class LengthTask(NamedTuple):
    """What is retrieved at each of some lengths, and what a reader must know of it."""

    name: str
    lengths: Sequence[int]
    at: Callable[[int], RetrievalData]
    note: str


def audit_length(
    model: Dewey,
    *,
    data: Sequence[Path] = (),
    lengths: Sequence[int] = LENGTHS,
    tokens_per_length: int = TOKENS_PER_LENGTH,
    longest_passkey: int | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
    cache: Path = CACHE,
    seed: int = 0,
    progress: bool = False,
) -> ResultPage:
    """nDCG@10 and accuracy@1 by document length, with one vector and with one a chunk.

    On each BEIR folder of `data`, its documents joined to the length, and on generated pass keys.
    `lengths` are whole passes, CLS and SEP included; for pass keys they are LongEmbed's tokens.
    Every length has the same number of documents, at least eight: as many as `tokens_per_length`
    tokens hold at the longest. Pass keys go up to `longest_passkey`; they cost as much as real
    documents, and say less. Vectors are kept in `cache`: a run that was killed goes on with
    the document it was in.

    Raises:
        ConfigError: lengths that do not ascend from 64 or more, too few tokens, or nothing to do.
        TaskError: a folder is no task, or holds too few documents.
        InputError: the model makes NaN.

    """
    if not lengths or lengths[0] < MIN_LENGTH or any(a >= b for a, b in pairwise(lengths)):
        raise ConfigError(
            f"lengths are {list(lengths)}; they must ascend, from {MIN_LENGTH} tokens or more"
        )
    if tokens_per_length < 1:
        raise ConfigError(f"tokens_per_length is {tokens_per_length}; it must be 1 or more")
    num_documents = max(MIN_DOCUMENTS, tokens_per_length // lengths[-1])
    tasks = [_joined(model, folder, lengths, num_documents, seed) for folder in data]
    keyed = [each for each in lengths if longest_passkey is None or each <= longest_passkey]
    if keyed:
        tasks.append(_passkeys(keyed, num_documents, seed))
    if not tasks:
        raise ConfigError(
            f"longest_passkey is {longest_passkey}, the shortest length {lengths[0]}, and no data "
            "is named: nothing to measure; name a folder, or allow longer pass keys"
        )
    vectors = VectorCache(model, cache.expanduser(), chunk_tokens=chunk_tokens)
    points: list[Point] = []
    total = sum(num_documents * length for task in tasks for length in task.lengths)
    with progress_bar("encoding", total, "tokens", show=progress) as advance:
        for task in tasks:
            for length in task.lengths:
                points += measure(task, length, vectors, advance)
    notes = [task.note for task in tasks]
    return to_findings(model, points, notes, chunk_tokens=chunk_tokens)


def measure(task: LengthTask, length: int, vectors: VectorCache, advance: Advance) -> list[Point]:
    """A point for each mode at one length."""
    data = task.at(length)
    documents = [vectors.encode(text, advance) for text in data.documents.values()]
    asked = vectors.model.encode_query(list(data.queries.values()))
    points = []
    for mode in MODES:
        cosines = vectors.model.similarity(asked, documents, mode=mode)
        ranking = {
            query: dict(zip(data.documents, map(float, row), strict=True))
            for query, row in zip(data.queries, cosines, strict=True)
        }
        scores = query_scores(data.qrels, ranking).values()
        points.append(
            Point(
                task=task.name,
                mode=mode,
                length=length,
                num_documents=len(documents),
                num_queries=len(data.queries),
                num_tokens=float(np.mean([each.num_tokens for each in documents])),
                in_windows=any(each.overflow for each in documents),
                ndcg=interval(np.array([each["ndcg_at_10"] for each in scores])),
                accuracy=interval(np.array([each["ndcg_at_1"] for each in scores])),
            )
        )
    return points


def _joined(
    model: Dewey, folder: Path, lengths: Sequence[int], num_documents: int, seed: int
) -> LengthTask:
    """A corpus, its documents joined to each length."""
    data = read_beir(folder)
    prompt = model.prompts.get("document", "")
    around = 2 + len(model.tokenizer.encode([""], prompt=prompt)[0].prompt_ids)
    made = JoinedTasks(
        data,
        model.tokenizer,
        lengths=[length - around for length in lengths],
        num_documents=num_documents,
        seed=seed,
    )
    left_out = [length for length in lengths if length - around not in made.lengths]
    note = (
        f"{data.name}: {len(made.qrels)} queries about {len(made.answers)} documents of at most "
        f"{made.lengths[0]:,} tokens, each joined with others of the corpus up to the length; "
        f"the others have {made.num_other_tokens:,} tokens together, and come again where that "
        "is less than a length."
    )
    if left_out:
        note += (
            f" Fewer than {MIN_DOCUMENTS} such documents fit into "
            f"{', '.join(f'{length:,}' for length in left_out)} tokens: not measured."
        )
    return LengthTask(
        data.name,
        [length + around for length in made.lengths],
        lambda length: made.at(length - around),
        note,
    )


def _passkeys(lengths: Sequence[int], num_documents: int, seed: int) -> LengthTask:
    """Generated pass keys, all of them asked for."""
    return LengthTask(
        "passkey",
        lengths,
        lambda length: passkey(length, num=num_documents, num_documents=num_documents, seed=seed),
        f"passkey: {num_documents} documents at each length, one query for each; lengths are "
        "LongEmbed's tokens of 0.75 words, the column of tokens holds the model's own.",
    )
