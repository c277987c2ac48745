"""Multi-scale deformable attention (arXiv 2010.04159) in plain PyTorch.

    out(q) = W sum over heads h, levels l, points k of  a_hlk V_l(p_q + o_hlk / size_l)_h

Each query samples a few points around its reference point p_q in every map. The offsets o (in
pixels of the map) and the weights a (softmax over levels and points) are linear in the query. V is
the projected map, sampled bilinearly, zero outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]
"""Height and width of a map."""


class DeformableAttention(nn.Module):
    """Queries attend to sampling points in one or several maps.

    Initially the k-th point of a head is k pixels away, in a direction of the head's own, and all
    points have equal weight.

    Args:
        channels: C, of queries, maps and output.
        inner: channels of the projected maps; a multiple of `heads`.
        levels: number of maps.
        heads: number of attention heads.
        points: sampling points of each head in each map.
    """

    def __init__(self, channels: int, inner: int, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads = heads
        self.shape = (heads, levels, points)
        self.value = nn.Linear(channels, inner)
        self.offsets = nn.Linear(channels, 2 * math.prod(self.shape))
        self.weights = nn.Linear(channels, math.prod(self.shape))
        self.out = nn.Linear(inner, channels)

        angle = 2 * math.pi * torch.arange(heads) / heads
        ray = torch.stack([angle.cos(), angle.sin()], -1)
        ray = ray / ray.abs().amax(-1, keepdim=True)  # onto the sides of a square
        steps = torch.arange(1, points + 1)[:, None] * ray[:, None, None]
        with torch.no_grad():
            self.offsets.bias.copy_(steps.expand(*self.shape, 2).flatten())
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.weights, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, points: Tensor, maps: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """Queries `(B, N, C)` to `(B, N, C)`.

        Args:
            queries: `(B, N, C)`.
            points: reference points `(N, 2)`, x and y from 0 to 1 across the maps; float32.
            maps: `(B, M, C)`, the flattened maps, concatenated.
            sizes: of the maps; their areas add up to M.
        """
        batch, count, _ = queries.shape
        values = self.value(maps).transpose(1, 2).unflatten(1, (self.heads, -1)).flatten(0, 1)
        # heads to the front: (B heads, N, levels, points, ...)
        offsets = self.offsets(queries).view(batch, count, *self.shape, 2)
        offsets = offsets.transpose(1, 2).flatten(0, 1)
        weights = self.weights(queries).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, *self.shape).transpose(1, 2).flatten(0, 1)

        total: Tensor | None = None
        by_level = torch.split(values, [height * width for height, width in sizes], -1)
        for level, (value, (height, width)) in enumerate(zip(by_level, sizes, strict=True)):
            # at least float32, also under autocast: bfloat16 cannot index the pixels of large maps
            at = points[:, None] + offsets[:, :, level] / points.new_tensor([width, height])
            samples = F.grid_sample(
                value.reshape(len(value), -1, height, width).to(at.dtype),
                2 * at - 1,
                padding_mode="zeros",
                align_corners=False,
            )  # (B heads, C / heads, N, points)
            weighted = (samples * weights[:, None, :, level]).sum(-1)
            total = weighted if total is None else total + weighted
        assert total is not None
        heads = total.reshape(batch, -1, count).transpose(1, 2)
        out: Tensor = self.out(heads.to(queries.dtype))
        return out


def reference_points(size: Size, device: torch.device | None = None) -> Tensor:
    """Centres of a map's pixels, `(height width, 2)`: x and y from 0 to 1 across the map."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) / side for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)
