"""A model folder → the model and its tokenizer, checked against each other."""

from __future__ import annotations

from pathlib import Path

from dewey_embed.config import DeweyConfig
from dewey_embed.model.checkpoint import Checkpoint, read_checkpoint
from dewey_embed.text.tokenizer import Tokenizer


def read_pretrained(folder: Path) -> tuple[Checkpoint, DeweyConfig, Tokenizer]:
    """A folder's weights, settings (with the tokenizer's special tokens) and tokenizer.

    Raises:
        CheckpointError: a file is missing, damaged or foreign, or they do not belong together.

    """
    checkpoint = read_checkpoint(folder)
    config, path = checkpoint.config, checkpoint.tokenizer / "tokenizer.json"
    if checkpoint.template:
        tokenizer = Tokenizer.from_file(path, lower_case=checkpoint.lower_case)
        config = config.with_special_ids(*tokenizer.special_ids)
    else:
        tokenizer = Tokenizer.from_file(path, special=config.special_ids)
    tokenizer.refuse_ids_from(config.backbone.vocab_size)
    return checkpoint, config, tokenizer
