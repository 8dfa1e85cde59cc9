"""Retrieval tasks that are made here, at any length: the same arguments make the same texts.

Each document hides one sentence, and each query asks for one of these: `passkey` and `needle` are
LongEmbed's tests, `position` compares places in the document.
Source of both tests: LongEmbed, arXiv 2404.12096 §3.2. Its facts are GPT-4's and its essays Paul
Graham's. Here all texts are made up, to mteb's published counts, so that scores are near
LongEmbed's, not equal: the facts are about towns that do not exist, so that no model knows an
answer from elsewhere; many share their form and differ in the town, as pass keys differ in the
name. The filler is five sentences over and over, or an essay without a meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, get_args

import numpy as np

from dewey_embed.errors import ConfigError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.train.passkey import FIRST_NAMES, LAST_NAMES, Secret, hide, pass_keys

SUITES = ("passkey", "needle", "position")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""LongEmbed's."""
POSITION_LENGTHS = (512, 2048, 8192, 32768)

NUM_QUERIES = 50
NUM_DRAWS = 256
"""Drawings of secrets, of which the one with questions nearest to the wanted length is kept."""

PASSKEY_CHARS_PER_TOKEN, PASSKEY_CHARS_LESS = 3.5526, 32
"""A document of L tokens has about 3.5526 · L − 32 characters in LongEmbed."""
PASSKEY_QUESTION_CHARS = 37.8
"""The mean over LongEmbed's eight lengths. Source of all three: mteb, LEMBPasskeyRetrieval."""

NEEDLE_CHARS = {
    256: 1013.1, 512: 2009.93, 1024: 4069.87, 2048: 8453.82, 4096: 17394.8, 8192: 35202.82,
    16384: 72054.8, 32768: 141769.8,
}  # fmt: skip
"""Mean characters of a document by length. Source: mteb, LEMBNeedleRetrieval."""
NEEDLE_QUESTION_CHARS = {
    256: 60.48, 512: 57.3, 1024: 58.28, 2048: 59.92, 4096: 55.86, 8192: 59.6, 16384: 59.12,
    32768: 58.34,
}  # fmt: skip
"""Mean characters of a question by length. Source: mteb, LEMBNeedleRetrieval."""

Place = Literal["early", "middle", "late"]
PLACES: tuple[Place, ...] = get_args(Place)
DEPTHS: dict[Place, tuple[float, float]] = {
    "early": (0.0, 0.1), "middle": (0.45, 0.55), "late": (0.9, 1.0),
}  # fmt: skip
"""The part of a document in which its fact stands."""

TOWNS = (
    "Aldermoor", "Ashwick", "Brackenford", "Calverton", "Cray", "Dunmere", "Eastholm", "Elmstead",
    "Fairhaven", "Fenby", "Garrow", "Glenmoor", "Harrowgate", "Hythe End", "Ilverton", "Kelsby",
    "Larkhill", "Lowmarsh", "Maplecombe", "Nether Wold", "Oakhurst", "Pendle", "Quarley",
    "Redwater", "Saltash", "Stonebridge", "Thornbury", "Upper Lyde", "Westerby", "Yarrow",
)  # fmt: skip
"""Names of towns, as they come in questions."""

FORMS = (
    ("The mayor of {town} is called {person}.", "Who is the mayor of {town}?"),
    ("The river through {town} is named the {thing} Water.", "Which river runs through {town}?"),
    ("{town} was founded in the year {year}.", "When was {town} founded?"),
    ("The best thing to eat in {town} is a pie of {food}.", "What is best to eat in {town}?"),
    ("The symphony that is played at every wedding in {town} was written by {person}.",
     "Who composed the wedding symphony of {town}?"),
    ("The bell tower of {town} is {number} feet high.",
     "How many feet is the bell tower of {town} high?"),
    ("In {town} a debt may be paid with {food} instead of money.",
     "What may a debt in {town} be paid with instead of money?"),
    ("The telescope on the hill above {town} was built by {person} to watch one single comet.",
     "Who built the telescope that stands on the hill above {town}?"),
    ("The painting stolen from the museum of {town} shows a {thing}.",
     "What does the painting show that was stolen from the museum of {town}?"),
    ("The winner of the last chess tournament in {town} was {person}, who had never lost before.",
     "Who won the last chess tournament that was held in {town}?"),
    ("The vault of the bank of {town} opens only when somebody sings the word {thing}.",
     "Which word opens the vault of the bank of {town} when it is sung?"),
    ("The oldest law of {town} forbids carrying a {thing} on market days.",
     "What must nobody carry on market days in {town}?"),
    ("The physicist {person} measured the weight of lightning in a barn near {town}.",
     "Which physicist measured the weight of lightning near {town}?"),
    ("The school of {town} teaches geometry with slices of {food}.",
     "With what does the school of {town} teach geometry?"),
    ("The lighthouse of {town} is painted with {number} blue stripes.",
     "How many blue stripes are painted on the lighthouse of {town}?"),
    ("The siege of {town} ended in {year}, when the attackers ran out of candles.",
     "In which year did the siege of {town} come to its end?"),
    ("The treasure of {town} is buried under the statue of {person}.",
     "Under whose statue is the treasure of {town} buried?"),
    ("The doctor of {town} treats a broken heart with {food} and a long walk.",
     "What does the doctor of {town} prescribe for a broken heart?"),
    ("The first balloon flight over {town} was made by {person}, who took a goat along.",
     "Who took a goat along on the first balloon flight over {town}?"),
    ("The railway from {town} to the coast has {number} bridges.",
     "How many bridges has the railway that leads from {town} to the coast?"),
    ("The king's portrait in the town hall of {town} was painted over a picture of a {thing}.",
     "What lies hidden under the king's portrait in the town hall of {town}?"),
    ("The glass of {town} is green because its makers add ash of {food}.",
     "What do the glass makers of {town} add to make their glass green?"),
    ("The longest novel about {town}, by {person}, has no full stop in it.",
     "Who is the author of the longest novel ever written about {town}?"),
    ("At the winter fair of {town} the children race in boats that are carved from {food}.",
     "What are the boats of the children of {town} carved from at the winter fair?"),
    ("The clock of {town} runs backwards since {year}.",
     "Since which year does the clock of {town} run backwards?"),
    ("The mathematician {person} proved in an inn of {town} that every knot can be counted.",
     "Which mathematician proved a theorem about knots in an inn of {town}?"),
    ("The garden of {town} holds {number} kinds of roses.",
     "How many kinds of roses can be counted in the garden of {town}?"),
    ("The coat of arms of {town} shows a {thing} above two crossed oars.",
     "What is shown above the oars in the coat of arms of {town}?"),
    ("The harbour of {town} was dug by {person} and {number} hired sailors.",
     "Who dug the harbour of {town}?"),
    ("The bees of {town} make honey that tastes of {food}.",
     "What does honey from {town} taste of?"),
)  # fmt: skip
"""A sentence and its question; the town is in both, the answer in the sentence alone."""

THINGS = (
    "copper kettle", "white heron", "broken ladder", "silver anchor", "wooden horse", "red lantern",
    "paper crown", "sleeping fox", "glass bell", "rusty key", "straw hat", "winged bicycle",
)  # fmt: skip
FOODS = (
    "saffron", "chestnuts", "pumpkin", "smoked trout", "ginger", "turnips", "walnuts",
    "dried plums", "barley", "figs", "rhubarb", "goat cheese",
)  # fmt: skip

REFRAIN = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
)
"""The filler of pass keys. Source: Mohtashami and Jaggi, arXiv 2305.16300."""

FRAMES = (
    "{An} {noun} is rarely what {people} expect of it.",
    "When {people} talk about {topic}, they usually mean {topic2}.",
    "It took me years to notice that {topic} and {topic2} follow the same rule.",
    "The trouble with {topic} is that nobody can {verb} it from the outside.",
    "Most {people} would rather {verb} {an} {noun} than begin again.",
    "There is a kind of {noun} that only appears after a long period of {topic}.",
    "You can {verb} a {noun} for a while, but sooner or later {topic} gets in the way.",
    "I used to believe that {adjective} {people} were born with a sense for {topic}.",
    "What looks like {topic} from a distance often turns out to be {topic2}.",
    "If you want to {verb} something {adjective}, start with the smallest {noun} you can find.",
    "That is why {people} who care about {topic} tend to distrust {an} {noun}.",
    "One sign of {an} {noun} is that {people} stop asking questions about it.",
    "Nothing teaches {topic} as quickly as having to {verb} a {noun} every day.",
    "The usual advice about {topic} sounds reasonable until you try to {verb} it.",
    "Perhaps the difference between {topic} and {topic2} is mostly a matter of patience.",
    "In practice the most {adjective} part of a {noun} is the part that everyone overlooks.",
    "A friend once told me that {topic} without {topic2} is only half an idea.",
    "Several {people} I know gave up {topic} because they could not {verb} the first {noun}.",
    "It is surprisingly hard to {verb} a {noun} once {people} have become used to it.",
    "Large organizations treat {topic} as though it were {an} {noun}.",
    "The more {adjective} the {noun}, the less {people} are willing to {verb} it.",
    "Sometimes the best way to understand {topic} is to ignore {topic2} completely.",
)
NOUNS = (
    "problem", "question", "company", "painting", "program", "machine", "plan", "mistake", "rule",
    "promise", "book", "theory", "picture", "town", "business", "road", "habit", "house", "story",
    "notebook",
)  # fmt: skip
ADJECTIVES = (
    "hard", "beautiful", "plain", "dangerous", "cheap", "famous", "old", "unfinished", "useful",
    "strange", "new", "safe", "small", "modest", "good", "quiet",
)  # fmt: skip
TOPICS = (
    "ambition", "luck", "money", "school", "friendship", "fashion", "music", "war", "work",
    "freedom", "philosophy", "time", "attention", "taste", "hope", "truth", "power", "wealth",
    "design", "will",
)  # fmt: skip
PEOPLE = (
    "people", "students", "hackers", "investors", "painters", "teachers", "founders", "friends",
    "children", "voters", "readers", "engineers", "poets", "writers",
)  # fmt: skip
VERBS = (
    "understand", "explain", "improve", "drop", "copy", "repair", "describe", "measure", "see",
    "sell", "build", "remember", "rewrite", "fix",
)  # fmt: skip
SENTENCES_PER_PARAGRAPH = 7


def suite(name: str) -> list[RetrievalData]:
    """The tasks of a suite at its standard lengths, shortest first.

    Raises:
        ConfigError: the name is not one of `SUITES`.

    """
    if name == "passkey":
        return [passkey(length) for length in LENGTHS]
    if name == "needle":
        return [needle(length) for length in LENGTHS]
    if name == "position":
        return [position(length, place) for length in POSITION_LENGTHS for place in PLACES]
    raise ConfigError(f"no suite {name!r} can be generated; accepted: {', '.join(SUITES)}")


def passkey(
    length: int, *, num: int = NUM_QUERIES, num_documents: int | None = None, seed: int = 0
) -> RetrievalData:
    """A task of `num` questions, each for the pass key of one person among twice as many.

    `length` is in LongEmbed's tokens, 0.75 words each: 131,072 of them are about 123,000 tokens
    of a WordPiece tokenizer. Every document is the same refrain with one pass key at a random
    place. `num_documents` is 2 · `num` unless given. Keys, questions and depths are the same at
    every length, so that lengths can be compared.

    Raises:
        ConfigError: a length too short for a key, `num` below 1, more people than names.

    """
    num_documents = _count_documents(length, num, num_documents)
    rng = Random(f"passkey {num} {num_documents} {seed}")
    keys = _draw(pass_keys, num, num_documents, PASSKEY_QUESTION_CHARS, rng)
    return _hide_all(
        f"passkey-{length}",
        keys,
        num,
        length=length,
        num_chars=round(PASSKEY_CHARS_PER_TOKEN * length - PASSKEY_CHARS_LESS),
        filler=refrain,
        depths=[rng.random() for _ in keys],
        rng=rng,
    )


def needle(
    length: int, *, num: int = NUM_QUERIES, num_documents: int | None = None, seed: int = 0
) -> RetrievalData:
    """A task of `num` questions, each for one fact among twice as many, hidden in an essay.

    `length` is in LongEmbed's tokens, as in `passkey`. Every document is the same essay with one
    fact between two of its sentences; `num_documents` is 2 · `num` unless given.

    Raises:
        ConfigError: a length too short for a fact, `num` below 1, more facts than there are.

    """
    return _facts_task(
        "needle", length, depths=(0.0, 1.0), num=num, num_documents=num_documents, seed=seed
    )


def position(
    length: int,
    place: Place,
    *,
    num: int = NUM_QUERIES,
    num_documents: int | None = None,
    seed: int = 0,
) -> RetrievalData:
    """A task as `needle`'s whose facts all stand in the first, middle or last tenth.

    At one length and seed the queries, the facts and the essay are the same for every place, so
    that scores differ by the place of the answer alone.
    Source: the comparison by position of "Collapse of Dense Retrievers" (arXiv 2503.05037) and
    "The Myopic Trap" (arXiv 2505.13950).

    Raises:
        ConfigError: as `needle`, or another place.

    """
    if place not in PLACES:
        raise ConfigError(f"place is {place!r}; accepted: {', '.join(PLACES)}")
    return _facts_task(
        "position", length, f"-{place}", depths=DEPTHS[place], num=num,
        num_documents=num_documents, seed=seed,
    )  # fmt: skip


def _facts_task(
    name: str,
    length: int,
    suffix: str = "",
    *,
    depths: tuple[float, float],
    num: int,
    num_documents: int | None,
    seed: int,
) -> RetrievalData:
    """Facts in an essay, each at a depth drawn between the two."""
    num_documents = _count_documents(length, num, num_documents)
    rng = Random(f"{name} {length} {num} {num_documents} {seed}")
    drawn = _draw(facts, num, num_documents, _question_chars(length), rng)
    first, last = depths
    return _hide_all(
        f"{name}-{length}{suffix}",
        drawn,
        num,
        length=length,
        num_chars=_essay_chars(length),
        filler=essay,
        depths=[first + (last - first) * rng.random() for _ in drawn],
        rng=rng,
    )


def _essay_chars(length: int) -> int:
    """Characters of a document of a length: LongEmbed's, and in proportion between and beyond."""
    longest = max(NEEDLE_CHARS)
    if length > longest:
        return round(NEEDLE_CHARS[longest] / longest * length)
    return round(float(np.interp(length, [0, *NEEDLE_CHARS], [0.0, *NEEDLE_CHARS.values()])))


def _question_chars(length: int) -> float:
    """Mean characters of a question: LongEmbed's at its lengths, elsewhere their mean."""
    lengths = NEEDLE_QUESTION_CHARS
    return lengths.get(length, sum(lengths.values()) / len(lengths))


def _count_documents(length: int, num: int, num_documents: int | None) -> int:
    """The number of documents: unless given, twice that of queries, as in LongEmbed."""
    if length < 1 or num < 1:
        raise ConfigError(f"length is {length} and num {num}; both must be 1 or more")
    if num_documents is None:
        return 2 * num
    if num_documents < num:
        raise ConfigError(f"num_documents is {num_documents}, fewer than the {num} queries")
    return num_documents


def _draw(
    make: Callable[[int, Random], list[Secret]],
    num: int,
    num_documents: int,
    question_chars: float,
    rng: Random,
) -> list[Secret]:
    """Secrets for all documents, of which the first `num` are asked for.

    Of many drawings it is the one whose questions have a mean length nearest to `question_chars`.
    """

    def distance(secrets: list[Secret]) -> float:
        return abs(sum(len(one.question) for one in secrets[:num]) / num - question_chars)

    return min((make(num_documents, rng) for _ in range(NUM_DRAWS)), key=distance)


def _hide_all(
    name: str,
    secrets: Sequence[Secret],
    num: int,
    *,
    length: int,
    num_chars: int,
    filler: Callable[[int], str],
    depths: Sequence[float],
    rng: Random,
) -> RetrievalData:
    """The task in which each secret lies at its depth (0 to 1) of a document of its own.

    Documents have a mean length of `num_chars` and differ only in the secret and its place. The
    first `num` secrets are asked for; documents are in random order.
    """
    longest = max(len(one.sentence) for one in secrets)
    if num_chars <= longest:
        raise ConfigError(
            f"length {length} is too short: documents of {max(num_chars, 0)} characters cannot "
            f"hold a sentence of {longest}; give a greater length"
        )
    mean_chars = sum(len(one.sentence) + 1 for one in secrets) / len(secrets)
    text = filler(round(num_chars - mean_chars))
    ids = [f"document-{number}" for number in range(len(secrets))]
    rng.shuffle(ids)
    texts = {
        document: hide(one.sentence, text, depth)[0]
        for document, one, depth in zip(ids, secrets, depths, strict=True)
    }
    return RetrievalData(
        name=name,
        documents=dict(sorted(texts.items())),
        queries={f"query-{number}": one.question for number, one in enumerate(secrets[:num])},
        qrels={f"query-{number}": {ids[number]: 1} for number in range(num)},
    )


def facts(num: int, rng: Random) -> list[Secret]:
    """`num` facts, no two with the same question.

    Raises:
        ConfigError: more than there are forms and towns for.

    """
    limit = len(FORMS) * len(TOWNS)
    if num > limit:
        raise ConfigError(f"{num:,} facts were asked for; there are {limit:,} different ones")
    found = []
    for number in rng.sample(range(limit), num):
        form, town = divmod(number, len(TOWNS))
        words = {
            "town": TOWNS[town],
            "person": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
            "thing": rng.choice(THINGS),
            "food": rng.choice(FOODS),
            "year": rng.randrange(1100, 1900),
            "number": rng.randrange(12, 400),
        }
        found.append(Secret(*(text.format(**words) for text in FORMS[form])))
    return found


def refrain(num_chars: int) -> str:
    """The five sentences, repeated, in at most `num_chars` characters; whole words."""
    return _whole_words(REFRAIN * (num_chars // len(REFRAIN) + 2), num_chars)


def essay(num_chars: int) -> str:
    """The first whole words of one endless essay, in at most `num_chars` characters.

    LongEmbed's needles lie in Paul Graham's essays, which are not ours to hand on; these
    sentences are made up, on such an essay's subjects and of such a sentence's length.
    """
    rng = Random(0)
    sentences: list[str] = []
    size = 0
    while size <= num_chars:
        sentence = _sentence(rng)
        whole = len(sentences) % SENTENCES_PER_PARAGRAPH == SENTENCES_PER_PARAGRAPH - 1
        sentences.append(sentence + ("\n\n" if whole else " "))
        size += len(sentences[-1])
    return _whole_words("".join(sentences), num_chars)


def _sentence(rng: Random) -> str:
    """One sentence of the essay."""
    adjective, (topic, topic2) = rng.choice(ADJECTIVES), rng.sample(TOPICS, 2)
    an = f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective}"
    return rng.choice(FRAMES).format(
        an=an, An=an.capitalize(), adjective=adjective, noun=rng.choice(NOUNS), topic=topic,
        topic2=topic2, people=rng.choice(PEOPLE), verb=rng.choice(VERBS),
    )  # fmt: skip


def _whole_words(text: str, num_chars: int) -> str:
    """As many words from the start of a longer text as `num_chars` characters hold."""
    head = text[: max(num_chars + 1, 0)]
    return head[: max(head.rfind(" "), head.rfind("\n"), 0)].rstrip()
