"""A model → the same model along the principal axes of its vectors, so that the first say most.

A rotation changes no cosine of complete vectors, but decides what is left of them by
`truncate_dim`: along the axes in which the vectors of many texts lie most, the leading dimensions
keep as much of all cosines as so few can. The last linear layer takes the rotation in, so that it
costs nothing; where the new axes lie in the teacher's space is written beside the weights.
Source: Eckart and Young 1936, applied to the matrix of dot products.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dewey_embed.encoder import Dewey
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.files import write_json
from dewey_embed.model.checkpoint import build_model
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.export import write_model, write_tokenizer_files
from dewey_embed.model.folder import HISTORY_FILE, atomic_model_folder
from dewey_embed.pretrained import read_pretrained
from dewey_embed.progress import progress_bar
from dewey_embed.train.card import CARD, with_axes
from dewey_embed.train.command import this_command
from dewey_embed.train.corpus import Corpus
from dewey_embed.train.recipe import CorpusRecipe, FilesSource
from dewey_embed.train.reduce import principal_directions
from dewey_embed.train.run import machine
from dewey_embed.train.start import runs_of
from dewey_embed.types import Floats

NUM_CHUNKS = 4096
"""Chunks whose vectors the axes are fitted on: ten for each of mini's dimensions."""

TEXT_TOKENS = 1024
"""Tokens that are read of a text, so that no long one has most of the chunks."""

TEXTS_AT_ONCE = 16

BESIDE = ("LICENSE*", "NOTICE*", "*.png", "*.svg")
"""Files that go with a card."""


class Rotation(NamedTuple):
    """What was fitted: (D, D) `directions`, a row each, of the vectors (N, D) of chunks."""

    directions: Floats
    vectors: Floats

    def shares(self, dim: int) -> tuple[float, float]:
        """The share of the vectors' squares in their first `dim` dimensions, before and after."""
        turned = self.vectors @ self.directions.T
        before, after = (
            float(np.square(each[:, :dim], dtype=np.float64).sum() / len(each))
            for each in (self.vectors, turned)
        )
        return before, after


def rotate(
    model: str | Path,
    data: Sequence[Path],
    output: Path,
    *,
    num_chunks: int = NUM_CHUNKS,
    text_field: str = "text",
    progress: bool = False,
) -> Rotation:
    """Write the model along the principal axes of its vectors of texts; the rotation.

    `data` are files, folders or globs of texts, JSON lines or Parquet. The last linear layer is
    written in float32, all else as it was. The axes of a model that has some are turned on, so that
    they still lie in the teacher's space.

    Raises:
        CheckpointError: the model cannot be loaded, or ends in no linear layer.
        ConfigError: there are no data, or fewer chunks than the vectors have dimensions.
        ReadError: a file cannot be read.

    """
    if not data:
        raise ConfigError("no data are given; give files of texts like those that will be searched")
    dewey = Dewey.load(model, dtype="float32")
    checkpoint, tokenizer = read_pretrained(dewey.folder)
    turned = build_model(checkpoint)
    _require_head(turned, dewey)
    dewey.truncate_dim = None  # of a folder that cuts its vectors all of them are turned
    vectors = _chunk_vectors(dewey, _texts(data, text_field), num_chunks, progress=progress)
    rotation = Rotation(principal_directions(vectors, vectors.shape[1]), vectors)
    turn(turned, rotation.directions)
    command = this_command()
    rotating = {"steps": 0, "tokens": 0, "train_hours": 0.0, "machine": machine()}
    history = [*runs_of(dewey.folder), {"command": command, **rotating}]
    with atomic_model_folder(output) as draft:
        write_model(turned, draft)
        tokenizer.save(draft / "tokenizer.json")
        write_tokenizer_files(checkpoint.tokenizer, draft, turned.config)
        write_json(draft / HISTORY_FILE, history, indent=2)
        _copy_card(dewey.folder, draft)
    return rotation


def turn(model: DeweyModel, directions: Floats) -> None:
    """Fold (D, D) orthonormal `directions` into the last linear layer, and into the axes.

    A vector v then comes out as `directions @ v`, exactly so in float32.
    """
    head = model.head
    assert head is not None
    matrix = torch.from_numpy(directions).double()
    axes = np.eye(len(directions)) if model.teacher_axes is None else model.teacher_axes
    with torch.no_grad():
        head.weight = torch.nn.Parameter((matrix @ head.weight.double()).float())
        if head.bias is not None:
            head.bias = torch.nn.Parameter((matrix @ head.bias.double()).float())
    model.teacher_axes = (axes.astype(np.float64) @ directions.T).astype(np.float32)


def _require_head(model: DeweyModel, dewey: Dewey) -> None:
    """Refuse a model that has no layer to take a rotation in."""
    if model.head is None:
        raise CheckpointError(
            f"{dewey.name}: ends in no linear layer, into which a rotation could be folded; train "
            "it with base.vector_size, which gives it one"
        )


def _texts(data: Sequence[Path], text_field: str) -> Corpus:
    """The texts of all paths, mixed evenly, in the order of one seed."""
    sources = tuple(FilesSource(path=str(path), text=text_field) for path in data)
    return Corpus(CorpusRecipe.parse({"sources": sources, "held_out": 0.0}, source="dewey rotate"))


def _chunk_vectors(dewey: Dewey, corpus: Corpus, num: int, *, progress: bool) -> Floats:
    """(N, D): vectors of `num` chunks of the beginnings of texts, and a few more.

    Raises:
        ConfigError: there are fewer than D.

    """
    beginnings = (_beginning(dewey, each.text) for each in corpus)
    vectors: list[Floats] = []
    with progress_bar("rotating", num, "chunks", show=progress) as advance:
        while len(vectors) < num and (texts := list(islice(beginnings, TEXTS_AT_ONCE))):
            documents = dewey.encode_document(texts, chunk_overlap=0)
            rows = [row for document in documents for row in document.chunks]
            vectors += rows
            advance(len(rows))
    if len(vectors) < dewey.embedding_dim:
        raise ConfigError(
            f"{len(vectors):,} chunks are fewer than the {dewey.embedding_dim} dimensions of the "
            "vectors, whose axes they are to show; give more texts with --data, or more --chunks"
        )
    return np.array(vectors)


def _beginning(dewey: Dewey, text: str) -> str:
    """The text up to the last token that is read."""
    [tokens] = dewey.tokenizer.encode([text])
    offsets = tokens.offsets
    return text if len(offsets) <= TEXT_TOKENS else text[: offsets[TEXT_TOKENS - 1, 1]]


def _copy_card(source: Path, draft: Path) -> None:
    """Copy the card and what goes with it, and say in it what the axes are."""
    names = [
        path.name
        for path in source.iterdir()
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in BESIDE)
    ]
    for name in names:
        shutil.copyfile(source / name, draft / name)
    if (card := source / CARD).is_file():
        text = with_axes(card.read_text(encoding="utf-8"))
        (draft / CARD).write_text(text, encoding="utf-8")
