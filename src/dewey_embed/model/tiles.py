"""Full attention of one long sequence on a CPU in bfloat16, as tiles of plain matrix products.

About 1.8 times as fast as `scaled_dot_product_attention`, whose CPU kernel leaves the processor's
bfloat16 units half idle, and never holds more than a few tiles. Exponentials are base 2, of scores
that the product itself shifts by an estimate of each row's maximum: two more columns of q hold
minus the estimate in two bfloat16 pieces, those of k hold ones. Any shift cancels in the softmax;
this one keeps scores small where weights are large, and so their rounding. Rows whose maximum the
estimate missed by far are found by their sums, and done again with the true one.

Shape suffixes: T tokens, N heads, D head width, G heads of a group, M query rows, K keys of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ROW_TOKENS = 512
KEY_TOKENS = 2048

SAMPLES = 64
"""Keys, spread evenly and the ends among them, that a row's maximum is estimated from."""

SUM_LIMIT = 2.0**15
"""A row whose weights sum to this and one more for each key may hold scores of 15 and more above
the estimate, where bfloat16 rounds by up to 1/32: too coarse for a large weight. One for each key
is what a row sums to that attends to all alike."""

Tile = tuple[Tensor, Tensor]
"""Keys (G, D + 2, K), the last two rows ones, and values (G, K, D)."""


def tiled_attention(q_TND: Tensor, k_TND: Tensor, v_TND: Tensor) -> Tensor:
    """(T, N, D): softmax(q·k/√D)·v, in the inputs' dtype; no gradients.

    Source of the tiling: arXiv 2205.14135 (FlashAttention), without its running maximum.
    """
    num_tokens, num_heads, width = q_TND.shape
    out_TND = torch.empty(q_TND.shape, dtype=q_TND.dtype)
    scaled_TND = q_TND * (math.log2(math.e) / math.sqrt(width))
    sample = torch.linspace(0, num_tokens - 1, SAMPLES).long()
    # As many heads at a time as there are threads to work on them.
    for heads in torch.arange(num_heads).split(max(2, torch.get_num_threads())):
        group = slice(int(heads[0]), int(heads[-1]) + 1)
        tiles = _tiles(k_TND[:, group], v_TND[:, group])
        sample_GDS = k_TND[sample, group].permute(1, 2, 0).contiguous()
        for rows in range(0, num_tokens, ROW_TOKENS):
            some = slice(rows, rows + ROW_TOKENS)
            q_GMD = scaled_TND[some, group].transpose(0, 1).contiguous()
            estimate_GM = (q_GMD @ sample_GDS).amax(-1)
            out_TND[some, group] = _attend(q_GMD, tiles, estimate_GM).transpose(0, 1)
    return out_TND


def _attend(q_GMD: Tensor, tiles: Sequence[Tile], estimate_GM: Tensor) -> Tensor:
    """(G, M, D) float32: what each row takes from all keys."""
    mixed_GMD, sums_GM1 = _weigh(q_GMD, tiles, estimate_GM)
    # Written so that NaN counts as missed, too.
    num_keys = sum(values.shape[1] for _, values in tiles)
    missed_GM = ~(sums_GM1.squeeze(-1) <= SUM_LIMIT + num_keys)
    mixed_GMD /= sums_GM1
    for head in missed_GM.any(-1).nonzero().flatten().tolist():
        missed = missed_GM[head].nonzero().flatten()
        own = [(keys[head : head + 1], values[head : head + 1]) for keys, values in tiles]
        q_1MD = q_GMD[head : head + 1, missed]
        true_1M = torch.stack([(q_1MD @ keys[:, :-2]).amax(-1) for keys, _ in own]).amax(0)
        again_1MD, again_1M1 = _weigh(q_1MD, own, true_1M)
        mixed_GMD[head, missed] = (again_1MD / again_1M1)[0]
    return mixed_GMD


def _weigh(q_GMD: Tensor, tiles: Sequence[Tile], shift_GM: Tensor) -> Tile:
    """Values (G, M, D) weighted by 2^(q·k - shift), and the weights' sums (G, M, 1), float32."""
    high = -shift_GM.unsqueeze(-1)
    low = (-shift_GM.float().unsqueeze(-1) - high.float()).to(q_GMD.dtype)
    shifted = torch.cat((q_GMD, high, low), dim=-1)
    mixed = torch.zeros(q_GMD.shape)
    sums = torch.zeros(high.shape)
    # One buffer for all tiles: new memory for each costs more than the exponentials in it.
    room = q_GMD.new_empty(len(q_GMD) * q_GMD.shape[1] * max(v.shape[1] for _, v in tiles))
    part = torch.empty_like(q_GMD)
    for keys, values in tiles:
        shape = (*q_GMD.shape[:2], values.shape[1])
        weights = room[: math.prod(shape)].view(shape)
        torch.bmm(shifted, keys, out=weights).exp2_()
        sums += weights.sum(-1, keepdim=True)
        mixed += torch.bmm(weights, values, out=part)
    return mixed, sums


def _tiles(k_TGD: Tensor, v_TGD: Tensor) -> list[Tile]:
    """Keys with their two rows of ones, and values, as contiguous tiles of like size."""
    num_tiles = math.ceil(len(k_TGD) / KEY_TOKENS)
    tiles = []
    for keys, values in zip(k_TGD.chunk(num_tiles), v_TGD.chunk(num_tiles), strict=True):
        ones = keys.new_ones((*keys.shape[:2], 2))
        extended = torch.cat((keys, ones), dim=-1).transpose(0, 1).contiguous()
        tiles.append((extended.mT, values.transpose(0, 1).contiguous()))
    return tiles
