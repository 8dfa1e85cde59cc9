"""Texts of generated tasks: invented facts with their questions, and filler to hide them in.

LongEmbed's needles are 100 facts that GPT-4 wrote, in Paul Graham's essays. The facts here are
about towns that do not exist, so that no model knows an answer from elsewhere; many share their
form and differ in the town, as pass keys differ in the name. The filler is five sentences over and
over, or an essay without a meaning, on such an essay's subjects.
"""

from __future__ import annotations

from random import Random

from dewey_embed.errors import ConfigError
from dewey_embed.train.passkey import FIRST_NAMES, LAST_NAMES, Secret

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
