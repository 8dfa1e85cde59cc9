"""The sections of a recipe that say which texts there are, and how they become samples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dewey_embed.config import Settings
from dewey_embed.text.splitter import known_splitter

SplitterName = Annotated[str, AfterValidator(known_splitter)]

PAPER_SPLITTERS: Mapping[SplitterName, float] = {"recursive": 0.7, "words": 0.3}
"""Source: arXiv 2503.20376 §3."""

Share = Annotated[float, Field(ge=0, le=1)]


class FilesSource(Settings):
    """Local Parquet, JSON lines (.gz, .zst too) or text files; `path` is a file, folder or glob.

    Only texts in which `matching` is found are taken. So one file can be two sources: all of it,
    and, with a weight of its own, what is on a subject.
    """

    kind: Literal["files"] = "files"
    path: str
    text: str = "text"
    matching: re.Pattern[str] | None = None
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    licence: str = ""


class HubSource(Settings):
    """A data set of the Hugging Face hub, streamed; `text` is its column of texts or turns."""

    kind: Literal["hub"]
    id: str
    subset: str | None = None
    split: str = "train"
    text: str = "text"
    matching: re.Pattern[str] | None = None
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    licence: str = ""
    shuffle_buffer: int = Field(default=10_000, gt=0)


class CorpusRecipe(Settings):
    """Which texts, in which order: mixed by weight, shuffled by seed, each once."""

    sources: tuple[Annotated[FilesSource | HubSource, Field(discriminator="kind")], ...] = Field(
        min_length=1
    )
    seed: int = 0
    min_characters: int = Field(default=200, ge=0)
    held_out: Share = 0.005
    max_texts: int | None = Field(default=None, gt=0)


class SplitRecipe(Settings):
    """How a text becomes samples: crops of it, each cut into chunks. Sizes in student tokens.

    The share `sentences` of the texts gives single sentences, at most `sentences_per_text` of them
    each, for the sake of queries, not crops; the share `clauses` of these are cut down to one of
    their clauses, for queries that are titles and keywords.

    A text that is trained on is cut `recuts` times more, each time elsewhere: a long run then reads
    it again as other chunks, which cannot be learnt by heart.
    """

    crop_tokens: dict[int, float] = Field(default_factory=lambda: {2048: 1.0})
    crops_per_text: int = Field(default=1, gt=0)
    crop_from: Literal["start", "anywhere"] = "start"
    sentences: Share = 0.0
    sentences_per_text: int = Field(default=6, gt=0)
    clauses: Share = 0.0
    splitters: dict[SplitterName, float] = Field(default_factory=lambda: dict(PAPER_SPLITTERS))
    chunk_tokens: tuple[int, int] = (64, 500)
    overlap: tuple[Share, Share] = (0.3, 0.6)
    max_chunks: int | None = Field(default=None, gt=0)
    recuts: int = Field(default=0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _ranges_run_forward(self) -> Self:
        for name, (low, high) in (("chunk_tokens", self.chunk_tokens), ("overlap", self.overlap)):
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]; the smaller number comes first")
        if self.chunk_tokens[0] < 1 or self.overlap[1] >= 1:
            raise ValueError("chunk_tokens must be at least 1 and overlap below 1")
        for name, weights in (("crop_tokens", self.crop_tokens), ("splitters", self.splitters)):
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise ValueError(f"{name} needs weights, none negative and not all zero")
        if min(self.crop_tokens) < 8:
            raise ValueError(f"crop_tokens {min(self.crop_tokens)} is too short; use 8 or more")
        return self
