"""The passkey test: whether the CLS vector of a long text still knows a sentence hidden in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import torch

from dewey_embed.errors import ConfigError
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.inference import Request, embed
from dewey_embed.text.splitter import spans_from_characters, split
from dewey_embed.text.tokenizer import Tokenizer

FIRST_NAMES = (
    "Ada", "Adele", "Amos", "Anselm", "Beata", "Boris", "Camilla", "Cedric", "Clara", "Conrad",
    "Delia", "Dora", "Edgar", "Elise", "Enid", "Felix", "Flora", "Gerard", "Greta", "Hanna",
    "Hugo", "Ines", "Irving", "Jasper", "Joan", "Judith", "Kaspar", "Leonard", "Lucia", "Mabel",
    "Marcus", "Mina", "Nadia", "Nestor", "Olga", "Oscar", "Paula", "Quentin", "Rosalind", "Rufus",
)  # fmt: skip
LAST_NAMES = (
    "Abbot", "Archer", "Barlow", "Bell", "Birch", "Brewer", "Calder", "Carver", "Combe", "Dale",
    "Draper", "Ellis", "Farrow", "Finch", "Fletcher", "Gale", "Garland", "Hale", "Harper", "Hobbs",
    "Ingram", "Jarvis", "Keene", "Lamb", "Latimer", "Marsh", "Mercer", "Moss", "Nye", "Orchard",
    "Parry", "Penrose", "Quill", "Rowe", "Sadler", "Swan", "Thorne", "Underhill", "Vane", "Webb",
)  # fmt: skip


SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+")


class Secret(NamedTuple):
    """A sentence that is hidden in a text, and the question that only this sentence answers."""

    sentence: str
    question: str


def pass_keys(num: int, rng: Random) -> list[Secret]:
    """Pass keys of `num` people, no two of one name, and the question for each.

    Raises:
        ConfigError: more people than there are names.

    """
    limit = len(FIRST_NAMES) * len(LAST_NAMES)
    if num > limit:
        raise ConfigError(f"{num:,} pass keys were asked for; there are {limit:,} different names")
    keys = []
    for number in rng.sample(range(limit), num):
        first, last = divmod(number, len(LAST_NAMES))
        name, key = f"{FIRST_NAMES[first]} {LAST_NAMES[last]}", rng.randrange(10_000, 100_000)
        keys.append(
            Secret(
                f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}.",
                f"what is the pass key for {name}?",
            )
        )
    return keys


def hide(sentence: str, text: str, depth: float) -> tuple[str, int]:
    """The text with a sentence at `depth` (0 to 1) of it, and the sentence's first character.

    It stands where another sentence begins, the nearest; in a text of one sentence, where a word
    does.
    """
    starts = [match.end() for match in SENTENCE_BREAK.finditer(text)]
    starts = [0, *(starts or [match.end() for match in re.finditer(r"\s+", text)])]
    wanted = depth * len(text)
    place = min(starts, key=lambda start: abs(start - wanted))
    return f"{text[:place]}{sentence} {text[place:]}", place


DEPTHS = (0.1, 0.5, 0.9)
CHUNK_TOKENS = 128
SEED = 0


@torch.inference_mode()
def passkey_accuracy(
    model: DeweyModel, tokenizer: Tokenizer, filler: Sequence[str], num_tokens: int
) -> float:
    """The share of hidden pass keys whose chunk is the nearest of its text to their question.

    One text of about `num_tokens` tokens for each depth, made of `filler`; the model's own passes.
    """
    found = []
    filled = _fill(filler, tokenizer, num_tokens)
    for depth, key in zip(DEPTHS, pass_keys(len(DEPTHS), Random(SEED)), strict=True):
        text, place = hide(key.sentence, filled, depth)
        tokens, query = tokenizer.encode([text, key.question])
        spans = split(text, tokens, chunk_tokens=CHUNK_TOKENS)
        starts, ends = (
            np.array([getattr(span, name) for span in spans])
            for name in ("token_start", "token_end")
        )
        room = model.config.max_tokens - 2
        no_spans = np.empty(0, np.int64)
        requests = [
            Request(tokens, starts, ends, room),
            Request(query, no_spans, no_spans, room),
        ]
        document, asked = embed(
            model, requests, single_vector="mean", batch_tokens=num_tokens + 1024
        )
        [hidden] = spans_from_characters(
            tokens, [(place, place + len(key.sentence))], num_chars=len(text)
        )
        best = spans[int((document.chunks @ asked.vector).argmax())]
        found.append(best.token_start < hidden.token_end and hidden.token_start < best.token_end)
    return float(np.mean(found))


def _fill(filler: Sequence[str], tokenizer: Tokenizer, num_tokens: int) -> str:
    """A text of about `num_tokens` tokens, made of `filler`."""
    parts: list[str] = []
    size = 0
    while size < num_tokens:
        for text in filler:
            parts.append(text)
            size += len(tokenizer.encode([text])[0])
            if size >= num_tokens:
                break
    text = "\n\n".join(parts)
    tokens = tokenizer.encode([text])[0]
    return text[: int(tokens.offsets[min(num_tokens, len(tokens)) - 1, 1])]
