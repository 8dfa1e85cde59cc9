"""Attention within the sequences of a packed row, over all of it or within a window.

On CUDA in half precision both kinds are FlashAttention. Everywhere else nothing of size T×T is
ever made: sliding layers attend as blocks of queries to the blocks of keys around them, global
layers one sequence at a time. What depends on the batch alone is computed once, in `RowAttention`.

Long sequences in bfloat16 on a CPU attend in tiles of plain matrix products: about 1.8 times as
fast as `scaled_dot_product_attention`, whose CPU kernel leaves the processor's bfloat16 units half
idle, and never more than a few tiles in memory. Exponentials are base 2, of scores that the product
itself shifts by an estimate of each row's maximum: two more columns of q hold minus the estimate in
two bfloat16 pieces, those of k hold ones. Any shift cancels in the softmax; this one keeps scores
small where weights are large, and so their rounding. Rows whose maximum the estimate missed by far
are recognised by their sums, and computed again with the true maximum.

Shape suffixes: T packed tokens, N heads, D head width, B blocks, Q queries and K keys of a block
or tile, G heads of a group, M query rows of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from dewey_embed.config import BackboneConfig, LayerType
from dewey_embed.model.packing import Packed

TILED_FROM_TOKENS = 512
"""Length from which tiles beat `scaled_dot_product_attention` on a CPU in bfloat16."""

PLAIN_UP_TO_TOKENS = 2048
"""Length up to which plain products train faster on a CPU than `scaled_dot_product_attention`."""

LOCAL_BLOCKS = 16
"""Blocks of a sliding layer that are computed at a time: their scores fit a core's cache."""

TILE_ROWS = 512
TILE_KEYS = 2048

SAMPLED_KEYS = 64
"""Keys, evenly spread from the first to the last, that a row's maximum is estimated from."""

SUM_LIMIT = 2.0**15
"""A row whose weights sum to this plus its number of keys may hold scores of 15 and more above the
estimate, where bfloat16 rounds by up to 1/32: too coarse for a large weight. A row that attends to
all keys alike sums to their number."""

Rotary = dict[LayerType, tuple[Tensor, Tensor]]
"""Cosines and sines (T, D/2) of positions' angles, for each kind of layer."""

Tile = tuple[Tensor, Tensor]
"""Keys (G, D + 2, K), the last two rows ones, and values (G, K, D)."""


class RowAttention:
    """Attention over one packed row in PyTorch: all that the layers share.

    `window` is the distance a sliding layer sees to each side: it attends where |i - j| ≤ window.
    `rotary` are the angles of every token, in the dtype of the weights; products are in `dtype`.
    """

    def __init__(
        self, packed: Packed, config: BackboneConfig, weights: torch.dtype, dtype: torch.dtype, *,
        flash: bool = False,
    ) -> None:  # fmt: skip
        self.packed = packed
        self.window = config.local_attention // 2
        self.flash = flash
        self.rotary = rotary_tables(config, packed.positions_T, weights)
        self.bias_B1QK = Tensor() if flash else _block_bias(packed, self.window, dtype)

    def __call__(self, q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, kind: LayerType) -> Tensor:
        """(T, N, D): for every token the values of those it sees, weighted by softmax(q·k/√D)."""
        if self.flash:
            return self._flash(q_TND, k_TND, v_TND, kind)
        # Mixed precision would turn the scores into float32, which doubles what a layer keeps.
        with torch.autocast(q_TND.device.type, enabled=False):
            if kind == "full_attention":
                return full_attention(q_TND, k_TND, v_TND, self.packed)
            return _local(q_TND, k_TND, v_TND, self.window, self.bias_B1QK)

    def _flash(self, q: Tensor, k: Tensor, v: Tensor, kind: LayerType) -> Tensor:
        """FlashAttention over the packed row, as torch ships it for CUDA."""
        from torch.nn.attention.varlen import varlen_attn

        packed = self.packed
        side = -1 if kind == "full_attention" else self.window
        out = varlen_attn(
            q, k, v, packed.cu_seqlens, packed.cu_seqlens, packed.max_length, packed.max_length,
            window_size=(side, side),
        )  # fmt: skip
        assert isinstance(out, Tensor)
        return out


def sliced(states: Tensor) -> bool:
    """Whether a long row passes in slices: on a CPU, and only without gradients.

    Slices stay in cache; but their gradients would be joined again at the width of the row.
    """
    return states.device.type == "cpu" and not torch.is_grad_enabled()


def rotary_tables(config: BackboneConfig, positions_T: Tensor, dtype: torch.dtype) -> Rotary:
    """Cosines and sines (T, D/2) of these positions' angles, for each kind of layer there is.

    Computed in float32. Source: arXiv 2104.09864 eq. 15, with θ_i = base^(-2i/D).
    """
    exponent = torch.arange(0, config.head_size, 2, device=positions_T.device) / config.head_size
    tables: Rotary = {}
    for kind in set(config.layer_types):
        angles = positions_T.float().unsqueeze(1) * (1.0 / (config.theta(kind) ** exponent))
        tables[kind] = angles.cos().to(dtype), angles.sin().to(dtype)
    return tables


def rotate(qkv_T3ND: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values (T, N, D); the first two rotated by their angles, in float32.

    Source: arXiv 2104.09864 eq. 34, halves for pairs, as in Hugging Face's weights.
    """
    query_key, value_TND = qkv_T3ND[:, :2], qkv_T3ND[:, 2]
    cos, sin = cos[:, None, None, :].float(), sin[:, None, None, :].float()
    first, second = query_key.float().chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    query_TND, key_TND = rotated.to(qkv_T3ND.dtype).unbind(1)
    return query_TND, key_TND, value_TND


def full_attention(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, packed: Packed) -> Tensor:
    """(T, N, D): attention over all of each sequence, one after the other; not on CUDA."""
    sequences = (rows.split(packed.lengths) for rows in (q_TND, k_TND, v_TND))
    return torch.cat([_full_one(q, k, v, packed) for q, k, v in zip(*sequences, strict=True)])


def _full_one(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, packed: Packed) -> Tensor:
    """Full attention of one sequence, by whichever way is fastest for it."""
    if q_TND.device.type == "cpu" and q_TND.dtype == torch.bfloat16:
        if torch.is_grad_enabled():
            if len(q_TND) <= PLAIN_UP_TO_TOKENS:
                return _plain(q_TND, k_TND, v_TND)
        elif len(q_TND) >= TILED_FROM_TOKENS:
            return tiled_attention(q_TND, k_TND, v_TND, packed.check)
    q_1NTD, k_1NTD, v_1NTD = (x.transpose(0, 1).unsqueeze(0) for x in (q_TND, k_TND, v_TND))
    size = len(q_TND) if packed.control is None else TILE_ROWS
    outputs = []
    for rows_1NTD in q_1NTD.split(size, dim=2):
        packed.check()
        outputs.append(F.scaled_dot_product_attention(rows_1NTD, k_1NTD, v_1NTD)[0])
    return torch.cat(outputs, dim=1).transpose(0, 1)


def _plain(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor) -> Tensor:
    """Full attention of one sequence as two products; for short ones only, it keeps N·T² scores."""
    q_NTD, k_NTD, v_NTD = (x.transpose(0, 1) for x in (q_TND, k_TND, v_TND))
    scores_NTT = (q_NTD * q_TND.shape[-1] ** -0.5) @ k_NTD.transpose(1, 2)
    out_NTD: Tensor = scores_NTT.softmax(-1) @ v_NTD
    return out_NTD.transpose(0, 1)


def _local(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, window: int, bias_B1QK: Tensor) -> Tensor:
    """Windowed attention: blocks of `window` queries against the three blocks of keys around them.

    A few blocks at a time, so that their scores are still in cache when they are used.
    """
    num_tokens = len(q_TND)
    rest = -num_tokens % window
    scaled = q_TND * q_TND.shape[-1] ** -0.5
    q_BNQD = F.pad(scaled, (0, 0, 0, 0, 0, rest)).unflatten(0, (-1, window)).transpose(1, 2)
    k_BKND, v_BKND = (_neighbours(x, window, rest) for x in (k_TND, v_TND))
    k_BNDK, v_BNKD = k_BKND.permute(0, 2, 3, 1), v_BKND.transpose(1, 2)
    outputs = []
    step = LOCAL_BLOCKS if sliced(q_TND) else len(q_BNQD)
    for first in range(0, len(q_BNQD), step):
        blocks = slice(first, first + step)
        scores_BNQK = q_BNQD[blocks] @ k_BNDK[blocks] + bias_B1QK[blocks]
        outputs.append(scores_BNQK.softmax(-1) @ v_BNKD[blocks])
    return torch.cat(outputs).transpose(1, 2).flatten(0, 1)[:num_tokens]


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


def tiled_attention(
    q_TND: Tensor, k_TND: Tensor, v_TND: Tensor, check: Callable[[], None] = lambda: None
) -> Tensor:
    """(T, N, D): softmax(q·k/√D)·v, in the inputs' dtype; no gradients.

    `check` is called between tiles; it may wait, or end the work by an exception.
    Source of the tiling: arXiv 2205.14135 (FlashAttention), without its running maximum.
    """
    num_tokens, num_heads, width = q_TND.shape
    out_TND = torch.empty(q_TND.shape, dtype=q_TND.dtype)
    scaled_TND = q_TND * (math.log2(math.e) / math.sqrt(width))
    sample = torch.linspace(0, num_tokens - 1, SAMPLED_KEYS).long()
    # As many heads at a time as there are threads to work on them.
    for heads in torch.arange(num_heads).split(max(2, torch.get_num_threads())):
        group = slice(int(heads[0]), int(heads[-1]) + 1)
        tiles = _tiles(k_TND[:, group], v_TND[:, group])
        sample_GDK = k_TND[sample, group].permute(1, 2, 0).contiguous()
        for first in range(0, num_tokens, TILE_ROWS):
            check()
            rows = slice(first, first + TILE_ROWS)
            q_GMD = scaled_TND[rows, group].transpose(0, 1).contiguous()
            estimate_GM = (q_GMD @ sample_GDK).amax(-1)
            out_TND[rows, group] = _attend_to_tiles(q_GMD, tiles, estimate_GM).transpose(0, 1)
    return out_TND


def _attend_to_tiles(q_GMD: Tensor, tiles: Sequence[Tile], estimate_GM: Tensor) -> Tensor:
    """(G, M, D) float32: the attention output of each row over all keys."""
    out_GMD, sums_GM1 = _weigh(q_GMD, tiles, estimate_GM)
    # Written so that NaN counts as missed, too.
    num_keys = sum(values.shape[1] for _, values in tiles)
    missed_GM = ~(sums_GM1.squeeze(-1) <= SUM_LIMIT + num_keys)
    out_GMD /= sums_GM1
    for head in missed_GM.any(-1).nonzero().flatten().tolist():
        missed = missed_GM[head].nonzero().flatten()
        own = [(keys[head : head + 1], values[head : head + 1]) for keys, values in tiles]
        q_1MD = q_GMD[head : head + 1, missed]
        maximum_1M = torch.stack([(q_1MD @ keys[:, :-2]).amax(-1) for keys, _ in own]).amax(0)
        again_1MD, sums_1M1 = _weigh(q_1MD, own, maximum_1M)
        out_GMD[head, missed] = (again_1MD / sums_1M1)[0]
    return out_GMD


def _weigh(q_GMD: Tensor, tiles: Sequence[Tile], shift_GM: Tensor) -> Tile:
    """Values (G, M, D) weighted by 2^(q·k - shift), and the weights' sums (G, M, 1), float32."""
    high = -shift_GM.unsqueeze(-1)
    low = (-shift_GM.float().unsqueeze(-1) - high.float()).to(q_GMD.dtype)
    shifted = torch.cat((q_GMD, high, low), dim=-1)
    out = torch.zeros(q_GMD.shape)
    sums = torch.zeros(high.shape)
    # One buffer for all tiles: new memory for each costs more than the exponentials in it.
    buffer = q_GMD.new_empty(len(q_GMD) * q_GMD.shape[1] * max(v.shape[1] for _, v in tiles))
    product = torch.empty_like(q_GMD)
    for keys, values in tiles:
        shape = (*q_GMD.shape[:2], values.shape[1])
        weights = buffer[: math.prod(shape)].view(shape)
        torch.bmm(shifted, keys, out=weights).exp2_()
        sums += weights.sum(-1, keepdim=True)
        out += torch.bmm(weights, values, out=product)
    return out, sums


def _tiles(k_TGD: Tensor, v_TGD: Tensor) -> list[Tile]:
    """Keys with their two rows of ones, and values, as contiguous tiles of equal size."""
    num_tiles = math.ceil(len(k_TGD) / TILE_KEYS)
    tiles = []
    for keys, values in zip(k_TGD.chunk(num_tiles), v_TGD.chunk(num_tiles), strict=True):
        ones = keys.new_ones((*keys.shape[:2], 2))
        extended = torch.cat((keys, ones), dim=-1).transpose(0, 1).contiguous()
        tiles.append((extended.mT, values.transpose(0, 1).contiguous()))
    return tiles
