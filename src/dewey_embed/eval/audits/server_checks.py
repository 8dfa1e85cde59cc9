"""The checks of `dewey audit server`: each sends requests and judges what comes back.

Checks run in the order of `CHECKS`: those with long texts come last, because a server that a long
request has broken gives no sane vectors any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

from dewey_embed.eval.audits.server_client import ApiName, Reply, Server
from dewey_embed.eval.scores import Doubles
from dewey_embed.printable import short_repr

Status = Literal["pass", "fail", "cannot tell", "info"]

LOOSE, STRICT = 1e-3, 1e-5
"""1 − cosine within which vectors of one text count as equal, and as equal in every digit used."""

SAME = 1e-10
"""1 − cosine of vectors that were computed from the same tokens."""

UNIT = 1e-3
"""How far the length of a unit vector may be from 1."""

SHORTEST = 256
BISECTIONS = 6
END_SHARE = 32
"""One word of so many is exchanged at a text's end; of a short text at least eight words."""

FEW, MANY = 4_096, 100_000
"""Numbers of texts in one request: more than OpenAI takes, and more than anybody should."""

PROBE = "the tenant pays rent"
PAUSE_S = 0.03
"""Between two short requests beside a long one, so that they cover all of its time."""

_WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government number
night point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body back parent face level office door
health person art war history party result change morning reason research girl guy moment air
teacher force education foot boy age policy music market sense nation plan college interest
death experience effect use class control field development role effort rate
"""
WORDS = _WORDS.split()
"""Common words, which most vocabularies hold as one token each."""


def words(count: int, seed: object) -> list[str]:
    """Common words in an order by seed."""
    return Random(str(seed)).choices(WORDS, k=count)


def sentence(count: int, seed: object) -> str:
    """A text of common words."""
    return " ".join(words(count, seed))


def gap(a: Doubles, b: Doubles) -> float:
    """1 − cosine of two vectors, which are finite and not zero."""
    product = np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b))
    return max(0.0, float(1 - product))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check: the evidence in words, and in `figures` as numbers."""

    status: Status
    evidence: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class UnmeasuredError(Exception):
    """A valid request has brought no vectors to compare; holds the finding of the check."""

    def __init__(self, reply: Reply, what: str) -> None:
        self.finding = Finding(
            status="fail" if reply.is_broken else "cannot tell", evidence=f"{what}: {reply.fault}"
        )
        super().__init__(self.finding.evidence)


class LengthRow(NamedTuple):
    """1 − cosine of texts of a length that differ only at their end, and only at their start."""

    tokens: int
    end: float
    start: float

    @property
    def cut(self) -> str:
        """Which side of the text its vector does not show."""
        unseen = [side for side in ("end", "start") if getattr(self, side) <= SAME]
        return " and ".join(unseen)


@dataclass(kw_only=True)
class Audit:
    """An audit of a server, as far as it has come."""

    server: Server
    max_tokens: int
    longest: int | None = None
    by_length: list[LengthRow] = field(default_factory=list)
    refusals: dict[int, Reply] = field(default_factory=dict)

    def vectors(self, texts: Sequence[str], what: str, **fields: Any) -> Doubles:
        """(N, D) of texts in one request.

        Raises:
            UnmeasuredError: the server has not answered with sane vectors.

        """
        reply = self.server.embed(list(texts), **fields)
        if reply.fault or reply.vectors is None:
            raise UnmeasuredError(reply, what)
        return reply.vectors

    def vector(self, text: str, what: str = "one text", **fields: Any) -> Doubles:
        """(D,) of a text that is alone in its request; raises as `vectors` does."""
        vector: Doubles = self.vectors([text], what, **fields)[0]
        return vector

    @cached_property
    def tokens_per_word(self) -> float:
        """Tokens of a common word by the server's own count; 1 where it does not count."""
        low, high = (self.server.embed([sentence(size, size)]).tokens for size in (32, 96))
        if not isinstance(low, int) or not isinstance(high, int):
            return 1.0
        rate = (high - low) / 64
        return rate if 0.5 <= rate <= 8 else 1.0

    def long_words(self, tokens: int) -> list[str]:
        """Words of a text with about so many tokens."""
        return words(max(16, round(tokens / self.tokens_per_word)), tokens)

    def lengths(self) -> list[int]:
        """Lengths in tokens at which texts are compared: 256 and its doubles, up to the longest."""
        doubles = [SHORTEST << power for power in range(24)]
        return [each for each in doubles if each < self.max_tokens] + [self.max_tokens]


# Tokens


def usage_grows(audit: Audit) -> Finding:
    """Whether the count of tokens grows as a text does."""
    sizes = (8, 16, 32, 64, 128)
    replies = [audit.server.embed([sentence(size, size)]) for size in sizes]
    for reply in replies:
        if reply.vectors is None:
            raise UnmeasuredError(reply, "one text")
    counts = [reply.tokens for reply in replies]
    known = [0, *(count for count in counts if isinstance(count, int))]
    if len(known) == 1:
        return Finding(status="cannot tell", evidence="the answers do not count tokens")
    grows = len(known) > len(sizes) and all(a < b for a, b in pairwise(known))
    return Finding(
        status="pass" if grows else "fail",
        evidence=f"texts of {', '.join(map(str, sizes))} words count as "
        f"{', '.join(map(str, counts))} tokens",
        figures={"words": sizes, "tokens": counts},
    )


def usage_sums(audit: Audit) -> Finding:
    """Whether a batch counts as many tokens as its texts do."""
    texts = [sentence(size, size) for size in (8, 24, 72)]
    alone = [audit.server.embed([text]).tokens for text in texts]
    reply = audit.server.embed(texts)
    if reply.vectors is None:
        raise UnmeasuredError(reply, "a batch of 3 texts")
    if reply.tokens is None or None in alone:
        return Finding(status="cannot tell", evidence="the answers do not count tokens")
    total = sum(filter(None, alone))
    return Finding(
        status="pass" if abs(reply.tokens - total) <= 2 * len(texts) else "fail",
        evidence=f"{' + '.join(map(str, alone))} tokens alone, {reply.tokens} in one batch",
        figures={"alone": alone, "batch": reply.tokens},
    )


# Batches


def mixed_texts() -> list[str]:
    """Texts of mixed lengths, the shortest first."""
    return [sentence(size, size) for size in (3, 9, 30, 60, 110)]


def compared(pairs: Sequence[tuple[Doubles, Doubles]], what: str) -> Finding:
    """The finding for pairs of vectors that should be equal."""
    largest = max(gap(a, b) for a, b in pairs)
    bound = next((each for each in (STRICT, LOOSE) if largest <= each), None)
    within = f"within {bound:.0e}" if bound else f"more than {LOOSE:.0e}"
    return Finding(
        status="pass" if bound else "fail",
        evidence=f"{what}: 1 − cosine at most {largest:.1e}, {within}",
        figures={"largest_gap": largest},
    )


def batch_invariant(audit: Audit) -> Finding:
    """Whether a text has one vector alone and in a batch."""
    texts = mixed_texts()
    alone = [audit.vector(text) for text in texts]
    batch = audit.vectors(texts, "a batch of 5 texts")
    return compared(list(zip(alone, batch, strict=True)), "5 texts alone and in one batch")


def order_invariant(audit: Audit) -> Finding:
    """Whether a batch's vectors follow its texts into another order."""
    texts = mixed_texts()
    forward = audit.vectors(texts, "a batch of 5 texts")
    backward = audit.vectors(texts[::-1], "a batch of 5 texts")[::-1]
    nearest = [int(np.argmin([gap(row, each) for each in forward])) for row in backward]
    finding = compared(list(zip(forward, backward, strict=True)), "a batch and its reverse")
    if finding.status == "fail" and nearest != list(range(len(texts))):
        evidence = f"{finding.evidence}; the vectors come back in another order than the texts"
        return Finding(status="fail", evidence=evidence, figures=finding.figures)
    return finding


def twice_equal(audit: Audit) -> Finding:
    """Whether a text has one vector where it stands twice in a batch."""
    short, long = sentence(9, 9), sentence(60, 60)
    first, second, _ = audit.vectors([short, short, long], "a batch of 3 texts")
    return compared([(first, second)], "a text twice in one batch")


# Vectors


def distinct(audit: Audit) -> Finding:
    """Whether different texts have different vectors, finite and not zero."""
    texts = [sentence(6, f"distinct {number}") for number in range(14)]
    texts += ["invoice number 1041", "invoice number 7365"]
    replies = [audit.server.embed([text]) for text in texts]
    for reply in replies:
        if reply.fault or reply.vectors is None:
            status: Status = "fail" if reply.status == 200 or reply.is_broken else "cannot tell"
            return Finding(status=status, evidence=f"a short text: {reply.fault}")
    rows = [reply.vectors[0] for reply in replies if reply.vectors is not None]
    gaps = [gap(a, b) for place, a in enumerate(rows) for b in rows[place + 1 :]]
    equal = sum(each <= SAME for each in gaps)
    return Finding(
        status="fail" if equal else "pass",
        evidence=f"{len(texts)} different texts: {equal} of {len(gaps)} pairs have equal vectors, "
        f"the nearest two 1 − cosine {min(gaps):.1e}",
        figures={"equal_pairs": equal, "pairs": len(gaps), "smallest_gap": min(gaps)},
    )


# Bad input


class BadInput(NamedTuple):
    """Bodies that a server should refuse, each with a label.

    `vectors` is how many it may return instead, or `None` where any answer but a refusal is wrong.
    """

    label: str
    body: bytes
    vectors: int | None = None


def bad_texts(server: Server, *texts: tuple[Any, int | None]) -> list[BadInput]:
    """Bodies with these in the place of texts."""
    return [BadInput(short_repr(text), server.body(text), vectors) for text, vectors in texts]


def blank_bodies(server: Server) -> list[BadInput]:
    """Texts without words."""
    return bad_texts(server, ("", 1), ("   ", 1), (["a text", ""], 2))


def empty_bodies(server: Server) -> list[BadInput]:
    """A list without texts."""
    return bad_texts(server, ([], 0))


def wrong_type_bodies(server: Server) -> list[BadInput]:
    """Values that are no texts, and none at all."""
    none = BadInput("no texts", json.dumps({"model": server.model}).encode())
    return [*bad_texts(server, ({"a": 1}, None), (True, None), ([{"a": 1}], None)), none]


def unicode_bodies(server: Server) -> list[BadInput]:
    """A lone surrogate, and bytes that are not UTF-8."""
    body = server.body("a text MARK").decode()
    return [
        BadInput("a lone surrogate", body.replace("MARK", r"\ud800").encode(), 1),
        BadInput("bytes that are not UTF-8", body.encode().replace(b"MARK", b"\xff\xfe"), 1),
    ]


def broken_bodies(server: Server) -> list[BadInput]:
    """Bodies that are not JSON."""
    half = server.body("a text")[:-2]
    return [BadInput("half of the JSON", half), BadInput("no JSON", b"a text")]


def judged(bad: BadInput, reply: Reply) -> Status:
    """Whether a server handles a bad body: refused, or answered with as many sane vectors."""
    if reply.timed_out or reply.status == 429:
        return "cannot tell"
    if reply.status == 200 and bad.vectors is not None and reply.vectors is not None:
        return "fail" if reply.fault else "pass"
    return "pass" if reply.is_refused else "fail"


def refused(audit: Audit, bodies: Callable[[Server], list[BadInput]]) -> Finding:
    """Whether bad bodies are refused, and the server lives on."""
    return judgement(audit, bodies(audit.server))


def many_texts(audit: Audit) -> Finding:
    """Whether a huge number of texts is refused, or answered."""
    finding = judgement(audit, _batches(audit.server, FEW))
    if finding.status != "pass" or 200 in finding.figures.values():
        return finding
    more = judgement(audit, _batches(audit.server, MANY))
    evidence = f"{finding.evidence}; {more.evidence}"
    return Finding(
        status=more.status, evidence=evidence, figures={**finding.figures, **more.figures}
    )


def _batches(server: Server, count: int) -> list[BadInput]:
    return [BadInput(f"{count:,} texts", server.body(["a"] * count), count)]


def judgement(audit: Audit, bodies: Sequence[BadInput]) -> Finding:
    """The finding for bad bodies, each answered with a status, and for a good text after them."""
    before = audit.vector(PROBE, "a short text")
    verdicts: list[Status] = []
    shown, statuses = [], {}
    for bad in bodies:
        reply = audit.server.post(bad.body, bad.vectors)
        verdicts.append(judged(bad, reply))
        statuses[bad.label] = reply.status
        if verdicts[-1] == "pass":
            shown.append(f"{bad.label}: {reply.status}")
        else:
            shown.append(f"{bad.label}: {reply.fault or f'{reply.status} with vectors'}")
    after = audit.server.embed([PROBE])
    if after.fault or after.vectors is None or gap(before, after.vectors[0]) > LOOSE:
        verdicts.append("fail")
        shown.append(f"then a short text gets {after.fault or 'another vector'}")
    worst: Status = next((each for each in ("fail", "cannot tell") if each in verdicts), "pass")
    return Finding(status=worst, evidence="; ".join(shown), figures=statuses)


# Formats


def base64_equal(audit: Audit) -> Finding:
    """Whether base64 holds the numbers that are sent as JSON otherwise."""
    numbers = audit.vector(PROBE, encoding_format="float")
    reply = audit.server.embed([PROBE], encoding_format="base64")
    if reply.is_refused:
        return Finding(status="cannot tell", evidence=f"base64 is refused: {reply.fault}")
    if reply.vectors is None:
        raise UnmeasuredError(reply, "one text as base64")
    if not reply.is_base64:
        return Finding(
            status="cannot tell", evidence="numbers come back where base64 was asked for"
        )
    coded = reply.vectors[0]
    if coded.shape != numbers.shape:
        evidence = f"{len(numbers)} numbers, and {len(coded)} in base64 of float32"
        return Finding(status="fail", evidence=evidence)
    largest = float(np.abs(coded - numbers).max())
    close = largest <= 1e-6 * float(np.abs(numbers).max())
    return Finding(
        status="pass" if close else "fail",
        evidence=f"{len(numbers)} numbers, which differ by at most {largest:.1e}",
        figures={"largest_difference": largest},
    )


def dimensions_kept(audit: Audit) -> Finding:
    """Whether `dimensions` is honoured with vectors of unit length, or refused."""
    full = audit.vector(PROBE)
    width, half = len(full), max(1, len(full) // 2)
    is_unit = abs(np.linalg.norm(full) - 1) <= UNIT
    statuses: list[Status] = []
    shown = []
    for wanted in (half, 2 * width):
        reply = audit.server.embed([PROBE], dimensions=wanted)
        if reply.is_refused:
            statuses.append("pass")
            shown.append(f"{wanted} refused with {reply.status}")
            continue
        if reply.fault or reply.vectors is None:
            raise UnmeasuredError(reply, f"dimensions {wanted}")
        vector = reply.vectors[0]
        norm = float(np.linalg.norm(vector))
        kept = len(vector) == wanted and (not is_unit or abs(norm - 1) <= UNIT)
        statuses.append("pass" if kept else "fail")
        shown.append(f"{wanted} gives {len(vector)} numbers of length {norm:.4f}")
    return Finding(
        status="fail" if "fail" in statuses else "pass",
        evidence=f"of {width}: {'; '.join(shown)}",
        figures={"width": width},
    )


# Informational


def unit_length(audit: Audit) -> Finding:
    """The lengths of vectors."""
    norms = np.linalg.norm(audit.vectors(mixed_texts(), "a batch of 5 texts"), axis=1)
    low, high = float(norms.min()), float(norms.max())
    kind = "unit length" if max(abs(low - 1), abs(high - 1)) <= UNIT else "not of unit length"
    return Finding(
        status="info",
        evidence=f"{kind}: {low:.4f} to {high:.4f}",
        figures={"shortest": low, "longest": high},
    )


def unknown_model(audit: Audit) -> Finding:
    """What becomes of a model's name that the server does not know."""
    reply = audit.server.embed([PROBE], model="no-such-model")
    handled = "ignored" if reply.vectors is not None else f"answered with {reply.fault}"
    return Finding(
        status="info", evidence=f"an unknown name is {handled}", figures={"status": reply.status}
    )


PROMPTS: Mapping[ApiName, tuple[str, str, str]] = {
    "openai": ("input_type", "query", "document"),
    "tei": ("prompt_name", "query", "document"),
}
"""The field of an API that names a prompt, with the names for queries and for documents."""


def prompts(audit: Audit) -> Finding:
    """Whether queries and documents have prompts of their own."""
    name, *values = PROMPTS[audit.server.name]
    replies = [audit.server.embed([PROBE], **{name: value}) for value in values]
    first, second = (None if each.fault else each.vectors for each in replies)
    if first is None or second is None:
        fault = next(each.fault for each in replies if each.fault)
        return Finding(status="info", evidence=f"`{name}` is answered with {fault}")
    difference = gap(first[0], second[0])
    effect = "changes nothing" if difference <= SAME else "is honoured"
    return Finding(
        status="info",
        evidence=f"`{name}` {effect}: 1 − cosine {difference:.1e} between query and document",
        figures={"gap": difference},
    )


# Long requests


def probe_holds(audit: Audit) -> Finding:
    """Whether a short text keeps its vector after long requests; finds a length that is taken."""
    before = audit.vector(PROBE)
    shown, largest = [], 0.0
    for tokens in _halved(audit.max_tokens):
        reply = audit.server.embed([" ".join(audit.long_words(tokens))])
        request = f"{tokens:,} tokens ({reply.status or 'no answer'})"
        after = audit.server.embed([PROBE])
        if after.fault or after.vectors is None:
            evidence = f"after a request of {request} a short text gets {after.fault}"
            return Finding(status="fail", evidence=evidence)
        largest = max(largest, gap(before, after.vectors[0]))
        shown.append(request)
        if largest > LOOSE:
            evidence = (
                f"after a request of {request} a short text has another vector: 1 − cosine "
                f"{largest:.1e}"
            )
            return Finding(status="fail", evidence=evidence, figures={"largest_gap": largest})
        if reply.status == 200:
            if reply.fault:
                return Finding(
                    status="fail", evidence=f"a text of {tokens:,} tokens: {reply.fault}"
                )
            audit.longest = tokens
            break
        audit.refusals[tokens] = reply
    return Finding(
        status="pass",
        evidence=f"after requests of {', '.join(shown)} a short text has its vector: 1 − cosine at "
        f"most {largest:.1e}",
        figures={"largest_gap": largest, "longest_taken": audit.longest},
    )


def _halved(tokens: int) -> Iterator[int]:
    """A length and its halves, down to the shortest one compared."""
    while tokens >= SHORTEST:
        yield tokens
        tokens //= 2


def short_beside_long(audit: Audit) -> Finding:
    """Whether short requests get their vectors while a long one runs."""
    if audit.longest is None:
        return Finding(status="cannot tell", evidence="no long text was answered")
    before = audit.vector(PROBE)
    alone = median(audit.server.embed([PROBE]).seconds for _ in range(5))
    long_text = " ".join(audit.long_words(audit.longest))
    replies: list[Reply] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(audit.server.embed, [long_text])
        while not (replies and running.done()):
            replies.append(audit.server.embed([PROBE]))
            wait([running], PAUSE_S)
        long_reply = running.result()
    for reply in (long_reply, *replies):
        if reply.fault:
            raise UnmeasuredError(reply, f"{len(replies)} short requests beside a long one")
    largest = max(gap(before, each.vectors[0]) for each in replies if each.vectors is not None)
    slowest = max(each.seconds for each in replies)
    return Finding(
        status="pass" if largest <= LOOSE else "fail",
        evidence=f"{len(replies)} beside one of {audit.longest:,} tokens ({long_reply.seconds:.2g} "
        f"s): 1 − cosine at most {largest:.1e}; the slowest took {1e3 * slowest:,.0f} ms, "
        f"{1e3 * alone:,.0f} ms alone",
        figures={"largest_gap": largest, "slowest_s": slowest, "alone_s": alone},
    )


def ends_count(audit: Audit) -> Finding:
    """Whether the ends of a text count in its vector, at every length up to the limit."""
    for tokens in audit.lengths():
        row = _length_row(audit, tokens)
        if row is None:
            break
        audit.by_length.append(row)
        if row.cut:
            return _cut_finding(audit, row)
    if not audit.by_length:
        return Finding(status="cannot tell", evidence=f"{SHORTEST} tokens are refused")
    last = audit.by_length[-1].tokens
    smallest = min(min(row.end, row.start) for row in audit.by_length)
    return Finding(
        status="pass",
        evidence=f"both ends count in texts of up to {last:,} tokens: 1 − cosine at least "
        f"{smallest:.1e}",
        figures={"longest": last, "smallest_gap": smallest},
    )


def _cut_finding(audit: Audit, row: LengthRow) -> Finding:
    """The finding for a length at which an end of the text does not count."""
    good = [each.tokens for each in audit.by_length if not each.cut]
    if row.cut == "end and start" and not good:
        return Finding(status="cannot tell", evidence="the vectors do not depend on the text")
    low, high = max(good, default=16), row.tokens
    for _ in range(BISECTIONS):
        middle = (low + high) // 2
        between = _length_row(audit, middle)
        if between is not None and between.cut:
            high = middle
        else:
            low = middle
    return Finding(
        status="fail",
        evidence=f"from about {high:,} tokens on the {row.cut} does not count, and nothing says "
        f"so: at {row.tokens:,} tokens another end is 1 − cosine {row.end:.1e} away, another "
        f"start {row.start:.1e}",
        figures={"cut_from": high, "compared_at": row.tokens, "end": row.end, "start": row.start},
    )


def _length_row(audit: Audit, tokens: int) -> LengthRow | None:
    """The comparison at a length; `None` where the text is refused."""
    base = audit.long_words(tokens)
    count = max(min(8, len(base) // 2), len(base) // END_SHARE)
    other = words(count, f"other {tokens}")
    vectors = []
    for variant in (base, [*base[:-count], *other], [*other, *base[count:]]):
        reply = audit.server.embed([" ".join(variant)])
        if reply.vectors is None:
            audit.refusals[tokens] = reply
            return None
        if reply.fault:
            raise UnmeasuredError(reply, f"a text of {tokens:,} tokens")
        vectors.append(reply.vectors[0])
    return LengthRow(tokens, gap(vectors[0], vectors[1]), gap(vectors[0], vectors[2]))


def limit_said(audit: Audit) -> Finding:
    """Whether a text past the server's limit is refused, and with which words."""
    longest = max([row.tokens for row in audit.by_length], default=0)
    limit = audit.server.limit
    if not audit.refusals and limit and limit >= longest:
        past = limit + max(64, limit // 8)
        row = _length_row(audit, past)
        if row is not None:
            seen = f"the {row.cut} does not count" if row.cut else "both ends count"
            return Finding(
                status="fail" if row.cut else "pass",
                evidence=f"{past:,} tokens are answered, more than the {limit:,} that the server "
                f"says it reads; {seen}",
                figures={"tokens": past, "limit": limit},
            )
    if not audit.refusals:
        evidence = f"{longest:,} tokens are answered; --max-tokens tries longer ones"
        return Finding(status="cannot tell", evidence=evidence)
    tokens, reply = min(audit.refusals.items())
    numbers = [int(each.replace(",", "")) for each in re.findall(r"\d[\d,]{2,}", reply.error)]
    status: Status = "pass" if reply.is_refused else "fail" if reply.is_broken else "cannot tell"
    said = "" if len(set(numbers)) > 1 or status != "pass" else " (does not say both numbers)"
    return Finding(
        status=status,
        evidence=f"about {tokens:,} tokens: {reply.fault}{said}",
        figures={"tokens": tokens, "status": reply.status, "numbers": numbers},
    )


class Check(NamedTuple):
    """A check: its topic and name, what to do where it fails, and the APIs that it fits."""

    topic: str
    name: str
    run: Callable[[Audit], Finding]
    remedy: str = ""
    apis: tuple[ApiName, ...] = ("openai", "tei", "ollama")


CUT_REMEDY = (
    "cut texts below that length yourself, raise the server's context, or have it refuse: TEI "
    "and Ollama with `truncate: false`"
)
BATCH_REMEDY = "send one text a request, and report it: padding or other texts leak into vectors"
BAD_REMEDY = "check inputs before you send them, and report it: such a body is the client's error"

CHECKS = (
    Check("usage", "tokens grow with the text", usage_grows,
          "count tokens yourself: bills and limits by this count are wrong"),
    Check("usage", "a batch counts its texts", usage_sums,
          "count tokens yourself: padding is counted, or texts are not"),
    Check("batches", "alone and in a batch", batch_invariant, BATCH_REMEDY),
    Check("batches", "in another order", order_invariant, BATCH_REMEDY),
    Check("batches", "twice in one batch", twice_equal, BATCH_REMEDY),
    Check("vectors", "distinct, finite, not zero", distinct,
          "restart the server and index again what it embedded: these vectors are worthless"),
    Check("bad input", "a blank text", partial(refused, bodies=blank_bodies), BAD_REMEDY),
    Check("bad input", "an empty list", partial(refused, bodies=empty_bodies), BAD_REMEDY),
    Check("bad input", "a wrong type", partial(refused, bodies=wrong_type_bodies), BAD_REMEDY),
    Check("bad input", "broken Unicode", partial(refused, bodies=unicode_bodies), BAD_REMEDY),
    Check("bad input", "not JSON", partial(refused, bodies=broken_bodies), BAD_REMEDY),
    Check("bad input", "too many texts", many_texts,
          "send fewer texts a request; the server should refuse more than it takes"),
    Check("formats", "base64 is float", base64_equal,
          "ask for `encoding_format: float`; OpenAI's client asks for base64 by default",
          ("openai",)),
    Check("formats", "dimensions", dimensions_kept,
          "leave `dimensions` out, cut the vectors yourself and scale them to unit length"),
    Check("info", "length of vectors", unit_length),
    Check("info", "an unknown model", unknown_model, "", ("openai", "ollama")),
    Check("info", "query and document", prompts, "", ("openai", "tei")),
    Check("long requests", "a short text afterwards", probe_holds,
          "keep texts below the server's limit, restart it, and index again what came after: "
          "those vectors are wrong and look right"),
    Check("long requests", "short ones beside it", short_beside_long,
          "send long texts when nothing else runs, and report it"),
    Check("length", "both ends count", ends_count, CUT_REMEDY),
    Check("length", "past the limit", limit_said,
          "keep texts below the limit; the server should answer 400 or 413 with both numbers"),
)  # fmt: skip
"""The checks in the order in which they run."""

TOPICS = ("length", "usage", "batches", "long requests", "vectors", "bad input", "formats", "info")
"""Topics in the order in which they are shown."""
