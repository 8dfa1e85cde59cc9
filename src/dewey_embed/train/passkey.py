"""A sentence hidden in a long text, and whether its chunk answers the question for it.

Shows whether rotary positions hold at a length that training never saw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.passes import embed, make_request
from dewey_embed.text.splitter import spans_from_characters, split
from dewey_embed.text.tokenizer import Tokenizer

DEPTHS = (0.1, 0.5, 0.9)
CHUNK_TOKENS = 128
KEYS = (
    ("The pass key of the vault is 71452.", "What is the pass key of the vault?"),
    ("The lighthouse keeper's parrot is called Bartholomew.",
     "What is the name of the lighthouse keeper's parrot?"),
    ("The secret ingredient of Aunt Mabel's soup is saffron.",
     "Which secret ingredient does Aunt Mabel put into her soup?"),
)  # fmt: skip


@torch.inference_mode()
def passkey_accuracy(
    model: DeweyModel, tokenizer: Tokenizer, filler: Sequence[str], num_tokens: int
) -> float:
    """The share of hidden sentences whose chunk is the nearest of its text to their question.

    One text of about `num_tokens` tokens for each depth, made of `filler`; the model's own passes.
    """
    found = []
    for depth, (key, question) in zip(DEPTHS, KEYS, strict=True):
        text, place = _hide(key, filler, tokenizer, num_tokens, depth)
        tokens, query = tokenizer.encode([text, question])
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
        [hidden] = spans_from_characters(tokens, [(place, place + len(key))], num_chars=len(text))
        best = spans[int((document.chunks @ asked.vector).argmax())]
        found.append(best.token_start < hidden.token_end and hidden.token_start < best.token_end)
    return float(np.mean(found))


def _hide(
    key: str, filler: Sequence[str], tokenizer: Tokenizer, num_tokens: int, depth: float
) -> tuple[str, int]:
    """A text of about `num_tokens` tokens with `key` at `depth` of it, and the key's character."""
    parts: list[str] = []
    size = 0
    while size < num_tokens:
        for text in filler:
            parts.append(text)
            size += len(tokenizer.encode([text])[0])
            if size >= num_tokens:
                break
    tokens = tokenizer.encode(["\n\n".join(parts)])[0]
    text = "\n\n".join(parts)[: int(tokens.offsets[min(num_tokens, len(tokens)) - 1, 1])]
    place = text.find(" ", int(depth * len(text)))
    place = len(text) if place < 0 else place + 1
    return f"{text[:place]}{key} {text[place:]}", place
