"""Attention within the sequences of a packed row: over all of a sequence, or within a window.

On CUDA in half precision both kinds are `varlen_attn`. Everywhere else nothing of size T×T is
ever made: sliding layers attend as blocks of queries against their neighbouring blocks of keys,
global layers one sequence at a time. What depends on the batch alone is worked out once, in
`AttentionPlan`, and used by every layer.

Shape suffixes: T packed tokens, N heads, D head width, B blocks, Q queries and K keys of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from dewey_embed.config import LayerType
from dewey_embed.model.packing import Packed


class AttentionPlan:
    """What every layer's attention needs to know of one batch.

    `window` is how far a sliding layer sees to each side: it attends where |i - j| ≤ window.
    """

    def __init__(self, packed: Packed, window: int, dtype: torch.dtype) -> None:
        self.packed = packed
        self.window = window
        self.on_flash = packed.ids_T.is_cuda and dtype in (torch.bfloat16, torch.float16)
        self.mask_B1QK = Tensor() if self.on_flash else _block_mask(packed, window)


def attend(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, kind: LayerType, plan: AttentionPlan) -> Tensor:
    """(T, N, D): for every token the values of those it sees, weighted by softmax(q·k/√D)."""
    if plan.on_flash:
        return _flash(q_TND, k_TND, v_TND, kind, plan)
    if kind == "full_attention":
        return _global(q_TND, k_TND, v_TND, plan.packed.lengths)
    return _local(q_TND, k_TND, v_TND, plan)


def rotate(qkv_T3ND: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (T, N, D); the first two turned by their tokens' angles.

    Source: arXiv 2104.09864 eq. 34, with halves in place of pairs as Hugging Face's weights have it.
    """
    query_key, value_TND = qkv_T3ND[:, :2], qkv_T3ND[:, 2]
    cos, sin = (table[:, None, None, :].float() for table in rotary)
    first, second = query_key.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    query_TND, key_TND = turned.to(qkv_T3ND.dtype).unbind(1)
    return query_TND, key_TND, value_TND


def _flash(q: Tensor, k: Tensor, v: Tensor, kind: LayerType, plan: AttentionPlan) -> Tensor:
    """FlashAttention over the packed row, as torch ships it for CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    packed = plan.packed
    side = -1 if kind == "full_attention" else plan.window
    out = varlen_attn(
        q, k, v, packed.cu_seqlens, packed.cu_seqlens, packed.max_length, packed.max_length,
        window_size=(side, side),
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out


def _global(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Full attention, one sequence at a time."""
    parts = (part.split(lengths) for part in (q, k, v))
    mixed = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in qkv))[0].transpose(0, 1)
        for qkv in zip(*parts, strict=True)
    ]
    return torch.cat(mixed)


def _local(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, plan: AttentionPlan) -> Tensor:
    """Windowed attention: blocks of `window` queries against three blocks of keys."""
    num_tokens, size = len(q_TND), plan.window
    rest = -num_tokens % size
    q_BNQD = F.pad(q_TND, (0, 0, 0, 0, 0, rest)).unflatten(0, (-1, size)).transpose(1, 2)
    k_BNKD, v_BNKD = (
        F.pad(x, (0, 0, 0, 0, size, rest + size)).unfold(0, 3 * size, size).transpose(2, 3)
        for x in (k_TND, v_TND)
    )
    mixed_BNQD = F.scaled_dot_product_attention(q_BNQD, k_BNKD, v_BNKD, attn_mask=plan.mask_B1QK)
    return mixed_BNQD.transpose(1, 2).flatten(0, 1)[:num_tokens]


def _block_mask(packed: Packed, window: int) -> Tensor:
    """(B, 1, Q, K) bool: which keys of the three blocks around it each query sees.

    A padded query sees all keys: it is cut off afterwards, and an empty row would be NaN.
    """
    device, size = packed.ids_T.device, window
    num_tokens = len(packed.ids_T)
    rest = -num_tokens % size
    lengths = torch.tensor(packed.lengths, device=device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
    owner_q = F.pad(owner, (0, rest), value=-1).unflatten(0, (-1, size))
    owner_k = F.pad(owner, (size, rest + size), value=-2).unfold(0, 3 * size, size)
    offset = torch.arange(3 * size, device=device) - torch.arange(size, device=device)[:, None]
    near = (offset >= 0) & (offset <= 2 * window)
    seen = near & (owner_q.unsqueeze(2) == owner_k.unsqueeze(1))
    return (seen | (owner_q == -1).unsqueeze(2)).unsqueeze(1)
