"""Sentences to hide in long texts with the questions they answer: personal pass keys.

What training probes and what `dewey_embed.eval.generated` measures hide the same sentences.
Source: arXiv 2401.00368 §5.2 and figure 4 (after Mohtashami and Jaggi, arXiv 2305.16300).
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

from dewey_embed.errors import ConfigError

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
