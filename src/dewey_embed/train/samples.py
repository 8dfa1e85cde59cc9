"""A text of the corpus → training samples: crops of it, each with the spans of its chunks.

Crops are cut by the student's tokens and chunks by the encoder's own splitters. All that is drawn
comes from the recipe's seed, the text itself and how often it was cut before, so every process and
every run draws the same.

Ours are samples that are one sentence, or one clause of it: queries are as short as the one,
titles and keywords as the other, and a crop is as short as neither.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.titles import untitled
from dewey_embed.train.context import Question, Surroundings, Titled, Why, masked, names, questions
from dewey_embed.train.corpus import CorpusText
from dewey_embed.train.recipe import ContextRecipe, ContextTop, SplitRecipe

NUM_SPECIAL = 2
"""CLS and SEP, which stand around every crop."""

SENTENCE = re.compile(r"\S(?:[^\n.!?。！？]|[.!?](?!\s))*[.!?。！？]?")
"""A line's stretch up to a full stop; what is no sentence after all is as good as a query."""

CLAUSE = re.compile(r"[^\s,;:()\[\]\"“”—][^,;:()\[\]\"“”—]*(?<!\s)")
"""A stretch without a comma or what else parts a sentence: in a list each of the things listed."""

SENTENCE_TOKENS = (5, 64)
"""Fewest and most tokens of a sentence or clause, CLS and SEP among them, that is made a sample."""

TRIED_FOR_ONE = 4
"""Sentences drawn for each that is wanted: some are too short, as an abbreviation is, or too long.
"""

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance decided for a sample: where its crop lies in the text and how it was cut."""

    crop_start: int
    crop_tokens: int
    splitter: str
    chunk_tokens: int
    chunk_overlap: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A crop's text and the characters of its chunks, (start, end) within that text.

    `contexts` is empty, or holds what the teacher reads before each chunk ("" for nothing);
    `questions` are answered by characters of the text.
    """

    id: str
    source: str
    text: str
    spans: list[tuple[int, int]]
    draw: Draw
    contexts: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def chunks(self) -> list[str]:
        """The chunks' texts, in order."""
        return [self.text[start:end] for start, end in self.spans]

    def prefixes(self) -> list[str]:
        """What the teacher reads before each chunk, in order; "" for nothing."""
        if not self.contexts:
            return [""] * len(self.spans)
        return [f"{context}. " if context else "" for context in self.contexts]


def cut_samples(
    text: CorpusText,
    tokenizer: Tokenizer,
    recipe: SplitRecipe,
    resplit: int = 0,
    *,
    context: ContextRecipe | None = None,
    why: Why | None = None,
) -> list[Sample]:
    """The samples of one text; none for one without tokens, or without the sentences it is for.

    Those of every `resplit`, of which 0 is the first cut, are drawn anew. With `context`, those of
    some texts with a title are contextual, and those of the others begin with no title; `why`
    counts chunks and questions that are not contextual.
    """
    again = [resplit] if resplit else []
    random = np.random.default_rng([recipe.seed, int(text.id, 16), *again])
    name = "-".join([text.id, *map(str, again)])
    if context and text.titled and random.random() < context.texts:
        counts = Counter[str]() if why is None else why
        recipes = recipe, context
        return _contextual(text, name, tokenizer, recipes, random=random, why=counts)
    plain = _plain(text, random) if context else text.text
    if recipe.sentences and random.random() < recipe.sentences:
        crop_tokens = SENTENCE_TOKENS[1]
        crops = _sentences(plain, tokenizer, recipe, random)
    else:
        crop_tokens = _draw(random, recipe.crop_tokens)
        most, crop_from = recipe.crops_per_text, recipe.crop_from
        crops = _crops(plain, tokenizer, random, crop_tokens, most=most, crop_from=crop_from)
    samples = []
    for number, (char_start, char_end) in enumerate(crops):
        crop = plain[char_start:char_end]
        if context:
            crop = untitled(crop)
        cut = _chunks(crop, tokenizer, recipe, random)
        if cut is not None:
            spans, splitter, size, overlap = cut
            draw = Draw(char_start, crop_tokens, splitter, size, overlap)
            samples.append(Sample(f"{name}-{number}", text.source, crop, spans, draw))
    return samples


def _plain(text: CorpusText, random: Generator) -> str:
    """A text whose chunks have no context: as often as not its title is a part of it.

    No blank line follows it there, as where a title and a text are joined for a search by words:
    so it is the blank line that makes a title, and not the words.
    """
    if text.titled is None:
        return text.text
    return text.titled.body if random.random() < 0.5 else f"{text.titled.title} {text.titled.body}"


def _contextual(
    text: CorpusText,
    name: str,
    tokenizer: Tokenizer,
    recipes: tuple[SplitRecipe, ContextRecipe],
    *,
    random: Generator,
    why: Why,
) -> list[Sample]:
    """The samples of a text with a title, whose chunks have contexts."""
    split_recipe, recipe = recipes
    parts = text.titled
    assert parts is not None
    crop_tokens = _draw(random, recipe.crop_tokens)
    room = max(8, crop_tokens - recipe.max_tokens)
    kind = _draw(random, recipe.tops)
    if kind != "title" and not (parts.lead and (kind != "lead" or names(parts.lead, parts.title))):
        why["texts without a lead sentence"] += 1
        kind = "title"
    crops = _crops(parts.body, tokenizer, random, room, most=recipe.crops_per_text)
    samples = []
    for number, (start, end) in enumerate(crops):
        crop = parts.body[start:end]
        top, about = _top(parts, kind, holds_lead=start == 0)
        if kind != "lead" and random.random() < recipe.masked:
            crop = masked(crop, parts.title, random, why)
        cut = _chunks(crop, tokenizer, split_recipe, random)
        if cut is None:
            continue
        spans, splitter, size, overlap = cut
        around = Surroundings(crop, about)
        contexts = [around.of_chunk(first, last, why) for first, last in spans]
        asked = questions(around, spans, recipe.questions_per_crop, random, why)
        samples.append(
            Sample(
                f"{name}-{number}",
                text.source,
                top + crop,
                [(first + len(top), last + len(top)) for first, last in spans],
                Draw(start, crop_tokens, splitter, size, overlap),
                [_first_tokens(each, recipe.max_tokens, tokenizer) for each in contexts],
                [one._replace(start=one.start + len(top), end=one.end + len(top)) for one in asked],
            )
        )
    return samples


def _top(parts: Titled, kind: ContextTop, *, holds_lead: bool) -> tuple[str, list[str]]:
    """What the student reads above a crop, and what the teacher reads before each chunk."""
    above = [] if kind == "lead" else [parts.title]
    if kind != "title" and not holds_lead:  # else the crop begins with it
        above.append(parts.lead)
    about = [parts.title, parts.lead] if kind == "title_and_lead" else [parts.title]
    return "".join(f"{each}\n\n" for each in above), about


def _first_tokens(text: str, most: int, tokenizer: Tokenizer) -> str:
    """The beginning of a text that has at most so many tokens."""
    offsets = tokenizer.encode([text])[0].offsets
    return text if len(offsets) <= most else text[: int(offsets[most - 1, 1])]


def _sentences(
    text: str, tokenizer: Tokenizer, recipe: SplitRecipe, random: Generator
) -> list[tuple[int, int]]:
    """Characters of each of some sentences or clauses, in order; fewer where there are no more."""
    found = [match.span() for match in SENTENCE.finditer(text)]
    tried = min(len(found), TRIED_FOR_ONE * recipe.sentences_per_text)
    drawn = [found[i] for i in random.choice(len(found), tried, replace=False)] if found else []
    if recipe.clauses:
        drawn = [
            _clause(text, span, random) if random.random() < recipe.clauses else span
            for span in drawn
        ]
    fewest, most = SENTENCE_TOKENS
    tokens = tokenizer.encode([text[start:end] for start, end in drawn])
    fit = [
        span
        for span, each in zip(drawn, tokens, strict=True)
        if fewest <= len(each) + NUM_SPECIAL <= most
    ]
    return sorted(fit[: recipe.sentences_per_text])


def _clause(text: str, sentence: tuple[int, int], random: Generator) -> tuple[int, int]:
    """Characters of one of a sentence's clauses, each as likely; itself where it has none."""
    clauses = [match.span() for match in CLAUSE.finditer(text, *sentence)]
    return clauses[int(random.integers(len(clauses)))] if clauses else sentence


def _crops(
    text: str,
    tokenizer: Tokenizer,
    random: Generator,
    crop_tokens: int,
    *,
    most: int,
    crop_from: str = "anywhere",
) -> list[tuple[int, int]]:
    """Characters of each crop: the whole text where it fits, else windows that do not overlap."""
    tokens = tokenizer.encode([text])[0]
    room = crop_tokens - NUM_SPECIAL
    if len(tokens) <= room:
        return [(0, len(text))]
    slots = len(tokens) // room
    count = min(most, slots)
    if crop_from == "start":
        starts = np.arange(count) * room
    else:
        slack = random.integers(0, len(tokens) - slots * room + 1)
        starts = slack + room * np.sort(random.choice(slots, count, replace=False))
    # A crop ends before a character that it would share with the next (the jamo of a Hangul).
    ends = np.minimum(tokens.offsets[:, 1], np.append(tokens.offsets[1:, 0], len(text)))
    return [(int(tokens.offsets[s, 0]), int(ends[s + room - 1])) for s in starts]


def _chunks(
    crop: str, tokenizer: Tokenizer, recipe: SplitRecipe, random: Generator
) -> tuple[list[tuple[int, int]], str, int, int] | None:
    """Character spans of a crop's chunks, and the draw that made them: splitter, size, overlap."""
    tokens = tokenizer.encode([crop])[0]
    splitter = _draw(random, recipe.splitters)
    size = int(random.integers(recipe.chunk_tokens[0], recipe.chunk_tokens[1] + 1))
    overlap = int(size * random.uniform(*recipe.overlap))
    spans = split(crop, tokens, splitter=splitter, chunk_tokens=size, chunk_overlap=overlap)
    if not spans:
        return None
    if recipe.max_chunks is not None and len(spans) > recipe.max_chunks:
        kept = np.sort(random.choice(len(spans), recipe.max_chunks, replace=False))
        spans = [spans[i] for i in kept]
    return [(span.char_start, span.char_end) for span in spans], splitter, size, overlap


def _draw(random: Generator, weights: Mapping[Key, float]) -> Key:
    """One of the keys, by weight."""
    keys = list(weights)
    share = np.array([weights[key] for key in keys])
    return keys[int(random.choice(len(keys), p=share / share.sum()))]
