"""Attention within the sequences of a packed row: over all of a sequence, or within a window.

On CUDA in half precision both kinds are `varlen_attn`. Everywhere else nothing of size T×T is
ever made: sliding layers attend as blocks of queries against their neighbouring blocks of keys,
global layers one sequence at a time (kernels of `native/` take this over where they can run). What
depends on the batch alone is worked out once, in `AttentionPlan`, and used by every layer.

Shape suffixes: T packed tokens, N heads, D head width, B blocks, Q queries and K keys of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from dewey_embed.config import LayerType
from dewey_embed.model.packing import Packed
from dewey_embed.model.tiles import tiled_attention

TILED_FROM_TOKENS = 512
"""Length from which tiles beat `scaled_dot_product_attention` on a CPU in bfloat16."""

PLAIN_UP_TO_TOKENS = 2048
"""Length up to which plain products train faster on a CPU than `scaled_dot_product_attention`."""

LOCAL_BLOCKS = 16
"""Blocks of a sliding layer that are worked on at a time: their scores fit a core's cache."""


class AttentionPlan:
    """What every layer's attention needs to know of one batch.

    `window` is how far a sliding layer sees to each side: it attends where |i - j| ≤ window.
    """

    def __init__(self, packed: Packed, window: int, dtype: torch.dtype) -> None:
        self.packed = packed
        self.window = window
        self.on_flash = packed.ids_T.is_cuda and dtype in (torch.bfloat16, torch.float16)
        self.bias_B1QK = Tensor() if self.on_flash else _block_bias(packed, window, dtype)


def attend(
    q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, kind: LayerType, plan: AttentionPlan
) -> Tensor:
    """(T, N, D): for every token the values of those it sees, weighted by softmax(q·k/√D)."""
    if plan.on_flash:
        return _flash(q_TND, k_TND, v_TND, kind, plan)
    # Mixed precision would turn the scores into float32, which doubles what a layer keeps.
    with torch.autocast(q_TND.device.type, enabled=False):
        if kind == "full_attention":
            return full_attention(q_TND, k_TND, v_TND, plan.packed.lengths)
        return _local(q_TND, k_TND, v_TND, plan)


def sliced(states: Tensor) -> bool:
    """Whether a long row passes in slices: on a CPU, and only where no gradient will be asked for.

    Slices stay in cache; but their gradients are put together again at the width of the whole row.
    """
    return states.device.type == "cpu" and not torch.is_grad_enabled()


def rotate(qkv_T3ND: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values (T, N, D); the first two turned by their tokens' angles, in float32.

    Source: arXiv 2104.09864 eq. 34, with halves for pairs, as Hugging Face's weights have it.
    """
    query_key, value_TND = qkv_T3ND[:, :2], qkv_T3ND[:, 2]
    cos, sin = cos[:, None, None, :].float(), sin[:, None, None, :].float()
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


def full_attention(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """(T, N, D): attention over all of each sequence, one after the other; not on CUDA."""
    parts = (part.split(lengths) for part in (q_TND, k_TND, v_TND))
    return torch.cat([_full_one(*qkv) for qkv in zip(*parts, strict=True)])


def _full_one(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor) -> Tensor:
    """Full attention of one sequence, by whichever way is fastest for it."""
    if q_TND.device.type == "cpu" and q_TND.dtype == torch.bfloat16:
        if torch.is_grad_enabled():
            if len(q_TND) <= PLAIN_UP_TO_TOKENS:
                return _plain(q_TND, k_TND, v_TND)
        elif len(q_TND) >= TILED_FROM_TOKENS:
            return tiled_attention(q_TND, k_TND, v_TND)
    q_1NTD, k_1NTD, v_1NTD = (x.transpose(0, 1).unsqueeze(0) for x in (q_TND, k_TND, v_TND))
    return F.scaled_dot_product_attention(q_1NTD, k_1NTD, v_1NTD)[0].transpose(0, 1)


def _plain(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor) -> Tensor:
    """Full attention of one sequence as two products; for short ones only, it keeps N·T² scores."""
    q_NTD, k_NTD, v_NTD = (x.transpose(0, 1) for x in (q_TND, k_TND, v_TND))
    scores_NTT = (q_NTD * q_TND.shape[-1] ** -0.5) @ k_NTD.transpose(1, 2)
    mixed: Tensor = scores_NTT.softmax(-1) @ v_NTD
    return mixed.transpose(0, 1)


def _local(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, plan: AttentionPlan) -> Tensor:
    """Windowed attention: blocks of `window` queries against the three blocks of keys around them.

    A few blocks at a time, so that their scores are still in cache when they are used.
    """
    num_tokens, size = len(q_TND), plan.window
    rest = -num_tokens % size
    scaled = q_TND * q_TND.shape[-1] ** -0.5
    q_BNQD = F.pad(scaled, (0, 0, 0, 0, 0, rest)).unflatten(0, (-1, size)).transpose(1, 2)
    k_BKND, v_BKND = (_neighbours(x, size, rest) for x in (k_TND, v_TND))
    k_BNDK, v_BNKD = k_BKND.permute(0, 2, 3, 1), v_BKND.transpose(1, 2)
    mixed = []
    step = LOCAL_BLOCKS if sliced(q_TND) else len(q_BNQD)
    for block in range(0, len(q_BNQD), step):
        some = slice(block, block + step)
        scores_BNQK = q_BNQD[some] @ k_BNDK[some] + plan.bias_B1QK[some]
        mixed.append(scores_BNQK.softmax(-1) @ v_BNKD[some])
    return torch.cat(mixed).transpose(1, 2).flatten(0, 1)[:num_tokens]


def _neighbours(x_TND: Tensor, size: int, rest: int) -> Tensor:
    """(B, 3·size, N, D): every block with the one before it and the one after it.

    Copied, not unfolded: its gradient is then a sum of slices.
    """
    blocks = F.pad(x_TND, (0, 0, 0, 0, size, rest + size)).unflatten(0, (-1, size))
    return torch.cat((blocks[:-2], blocks[1:-1], blocks[2:]), dim=1)


def _block_bias(packed: Packed, window: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, Q, K): 0 where a query sees a key of the three blocks around it, else -inf.

    A padded query sees all keys: it is cut off afterwards, and an empty row would be NaN.
    """
    device, size = packed.ids_T.device, window
    rest = -len(packed.ids_T) % size
    lengths = torch.tensor(packed.lengths, device=device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
    owner_BQ = F.pad(owner, (0, rest), value=-1).view(-1, size)
    owner_BK = F.pad(owner, (size, rest + size), value=-2).unfold(0, 3 * size, size)
    offset_QK = torch.arange(3 * size, device=device) - torch.arange(size, device=device)[:, None]
    near_QK = (offset_QK >= 0) & (offset_QK <= 2 * window)
    seen_BQK = near_QK & (owner_BQ.unsqueeze(2) == owner_BK.unsqueeze(1))
    seen_BQK |= (owner_BQ == -1).unsqueeze(2)
    bias = torch.zeros(seen_BQK.shape, dtype=dtype, device=device)
    return bias.masked_fill_(~seen_BQK, float("-inf")).unsqueeze(1)
