"""A model folder → the model and its tokenizer, checked against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dewey_embed.model.checkpoint import Checkpoint, read_checkpoint
from dewey_embed.text.tokenizer import Tokenizer


def read_pretrained(folder: Path) -> tuple[Checkpoint, Tokenizer]:
    """A folder's settings, with its tokenizer's special tokens, its weights, and the tokenizer.

    Raises:
        CheckpointError: a file is missing, damaged or foreign, or they do not belong together.

    """
    checkpoint = read_checkpoint(folder)
    path = checkpoint.tokenizer / "tokenizer.json"
    if checkpoint.template:
        tokenizer = Tokenizer.from_file(path, lower_case=checkpoint.lower_case)
        config = checkpoint.config.with_special_ids(*tokenizer.special_ids)
        checkpoint = replace(checkpoint, config=config)
    else:
        tokenizer = Tokenizer.from_file(path, special=checkpoint.config.special_ids)
    tokenizer.refuse_ids_from(checkpoint.config.backbone.vocab_size)
    return checkpoint, tokenizer
