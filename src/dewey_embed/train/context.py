"""What a chunk does not say of itself: its document's title, the heading above it, the lead.

The target of a chunk may be the teacher's vector of these and the chunk together. The student reads
the title only above the text, and often no mention of it below: the way to such a target leads
through the document. Source: ours, after ConTEB's setting (arXiv 2505.24782 §3), whose questions
name what their passages leave out.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from numpy.random import Generator

from dewey_embed.text.sentences import sentence_starts

MOST_TITLE_CHARACTERS = 200

MOST_WORDS_WITH_STOP = 8
"""Words of a first line from which on a full stop makes it a sentence, and no title."""

_FILE_NAME = re.compile(r"[\w\-. ]*\w\.[a-z]\w{1,4}", re.IGNORECASE)
_HEADING = re.compile(r"(?m)^[^\S\n]*(?=\S{2})(?![-*•|>\d])([^\n.:;,!?|]{2,60})[.:]?[^\S\n]*$")
_QUALIFIER = re.compile(r"\s*[(\[].*")
_WORD = re.compile(r"\w+")

SHORTEST_SECTION = 80
"""Characters of the line below a heading: list items and verses have no such line below them."""

_LINE_BELOW = re.compile(rf"\s*\S[^\n]{{{SHORTEST_SECTION - 1}}}")

SHORTEST_LEAD = 30
LONGEST_LEAD = 300

NAMED_EVERYWHERE = 0.9
"""The share of sentences with the title from which on masking would leave no text to read."""

STAND_INS = ("it", "this", "they", "")
"""What stands for a mention of the title in a masked text: a pronoun, or nothing."""

Why = Counter[str]
"""How often a text, chunk or question had no context, by the reason."""


@dataclass(frozen=True, slots=True)
class Titled:
    """A text with its title: `body` is what follows the title's line, `lead` its first sentence.

    `lead` is empty where the first sentence is too short or too long to say what the text is about.
    """

    title: str
    body: str
    lead: str


class Question(NamedTuple):
    """A question, and the characters of a sample's text that answer it."""

    text: str
    start: int
    end: int


def titled(text: str, why: Why) -> Titled | None:
    r"""The text by its parts, where its first line is a title; else None, counted in `why`.

    >>> titled("Albania\n\nIt lies by the sea.", Counter())
    Titled(title='Albania', body='It lies by the sea.', lead='')
    """
    line, blank, body = text.partition("\n\n")
    is_sentence = line.strip().endswith(".") and len(line.split()) > MOST_WORDS_WITH_STOP
    is_title = blank and "\n" not in line.strip() and not is_sentence
    return _parts(line if is_title else "", body, why)


def under_title(title: str, text: str, why: Why) -> Titled | None:
    r"""A text under a title, if that is one; else None, counted in `why`.

    Where the text's first line is the title again, what follows is the body.

    >>> under_title("Albania", "Albania\nIt lies by the sea.", Counter()).body
    'It lies by the sea.'
    """
    title = " ".join(title.split())
    line, _, below = text.strip().partition("\n")
    return _parts(title, below if line.strip() == title else text, why)


def _parts(title: str, body: str, why: Why) -> Titled | None:
    """A title and what stands below it, if it is one; else None, counted in `why`."""
    title, body = title.strip(), body.strip()
    if not _WORD.search(title):
        why["texts without a title"] += 1
    elif _FILE_NAME.fullmatch(title):
        why["texts whose title is a file name"] += 1
    elif len(title) > MOST_TITLE_CHARACTERS:
        why["texts whose title is too long"] += 1
    elif not _WORD.search(body):
        why["texts with nothing below the title"] += 1
    else:
        lead = sentences(body[: 2 * LONGEST_LEAD])[0]
        return Titled(title, body, lead if SHORTEST_LEAD <= len(lead) <= LONGEST_LEAD else "")
    return None


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the blanks around them."""
    return [text[start:end].strip() for start, end in pairwise([*sentence_starts(text), len(text)])]


def names(text: str, title: str) -> bool:
    """Whether a text mentions the title, or what it is called without its qualifier."""
    return _mentions(title).search(text) is not None


def masked(text: str, title: str, random: Generator, why: Why) -> str:
    """The text without mentions of the title, or of its words that are written as names.

    Unchanged where nearly every sentence names it, or nothing would be left; counted in `why`.
    """
    mentions = _mentions(title)
    own = sentences(text)
    naming = sum(mentions.search(sentence) is not None for sentence in own)
    if len(own) > 2 and naming >= NAMED_EVERYWHERE * len(own):
        why["crops with the title in every sentence"] += 1
        return text
    stand_in = STAND_INS[int(random.integers(len(STAND_INS)))]
    without = mentions.sub(stand_in, text)
    if not _WORD.search(without):
        why["crops that masking would empty"] += 1
        return text
    return without


def headings(text: str) -> list[tuple[int, int, str]]:
    r"""Start and end of each line that is a heading, with its words.

    >>> headings("Climate.\n" + "It rains. " * 9)
    [(0, 8, 'Climate')]
    """
    found = []
    for match in _HEADING.finditer(text):
        below = _LINE_BELOW.match(text, match.end())
        if below and match[1].strip()[0].isupper():
            found.append((match.start(1), match.end(), match[1].strip()))
    return found


@dataclass(slots=True)
class Surroundings:
    """What stands around the chunks of a crop: of `text` its headings, and the crop's `about`.

    `about` is what every chunk is told: the title, and the lead where that is wanted.
    """

    text: str
    about: list[str]
    headings: list[tuple[int, int, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.headings = headings(self.text)

    def of_chunk(self, start: int, end: int, why: Why) -> str:
        """The context of the chunk from `start` to `end`; none where a title is longer than it."""
        title, *more = self.about
        if len(title) > end - start:
            why["chunks shorter than their title"] += 1
            return ""
        number = bisect_right([begin for begin, _, _ in self.headings], start - 1)
        above = [self.headings[number - 1][2]] if number else []
        return ". ".join([title, *above, *more])

    def sections(self) -> list[tuple[str, int, int]]:
        """Every heading with the characters of the text under it."""
        starts = [start for start, _, _ in self.headings] + [len(self.text)]
        return [
            (heading, end, following)
            for (_, end, heading), following in zip(self.headings, starts[1:], strict=True)
        ]


FORMS = (
    "{title} {heading}",
    "{title}: {heading}",
    "{heading} of {title}",
    "What is the {heading} of {title}?",
    "What is said of {title} on {heading}?",
    "How about {title} and its {heading}?",
    "Tell me about the {heading} of {title}.",
)
"""Questions on a section of a document; queries are as often words as sentences."""


def questions(
    around: Surroundings, chunks: list[tuple[int, int]], most: int, random: Generator, why: Why
) -> list[Question]:
    """At most `most` questions: on sections by their headings, else on words of a chunk.

    Each names the title, which the passage that answers it may not.
    """
    title = _QUALIFIER.sub("", around.about[0]) or around.about[0]
    sections = around.sections()
    found = []
    for number in random.permutation(len(sections))[: (most + 1) // 2]:
        heading, start, end = sections[number]
        form = FORMS[int(random.integers(len(FORMS)))]
        plain = heading if heading.isupper() else heading[0].lower() + heading[1:]
        found.append(Question(form.format(title=title, heading=plain), start, end))
    for number in random.permutation(len(chunks))[: most - len(found)]:
        start, end = chunks[number]
        clauses = [
            match.group().strip()
            for match in re.finditer(r"(?<!\w)[^\n.,;:()!?]{15,90}(?!\w)", around.text[start:end])
        ]
        if not clauses:
            why["questions without a passage"] += 1
            continue
        clause = clauses[int(random.integers(len(clauses)))]
        form = ("{title}: {clause}", "{clause}, {title}")[int(random.integers(2))]
        found.append(Question(form.format(title=title, clause=clause), start, end))
    return found


def _mentions(title: str) -> re.Pattern[str]:
    """What finds the title without its qualifier, and each of its longer capitalised words."""
    bare = _QUALIFIER.sub("", title) or title
    words = [word for word in _WORD.findall(bare) if len(word) > 3 and word[0].isupper()]
    wholes = [r"\s+".join(map(re.escape, each.split())) for each in (title, bare)]
    options = [*(rf"(?i:{whole})" for whole in wholes), *map(re.escape, words)]
    return re.compile(rf"(?<!\w)(?:{'|'.join(options)})(?:'s|’s)?(?!\w)")
