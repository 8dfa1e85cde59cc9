"""A pass key hidden in a long text, and whether its chunk answers the question for it.

Shows whether rotary positions hold at a length that training never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import torch

from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.inference import embed, make_request
from dewey_embed.text.splitter import spans_from_characters, split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.keys import hide, pass_keys

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
            make_request(tokens, starts, ends, room=room),
            make_request(query, no_spans, no_spans, room=room),
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
