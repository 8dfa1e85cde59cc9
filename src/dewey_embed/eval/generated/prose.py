"""Filler to hide sentences in: five sentences over and over, or an essay that says nothing."""

from __future__ import annotations

from random import Random

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
