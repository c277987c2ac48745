"""Multi-scale deformable attention (arXiv 2010.04159) in plain PyTorch.

    out(q) = W sum over heads h, levels l, points k of  a_hlk V_l(p_q + o_hlk / size_l)_h

Each query looks at a few points around its own place p_q in every map. Where they lie (o, in
pixels of the map) and what each counts (a, softmax over levels and points) are linear in the query;
V is the projected map, read between its pixels bilinearly and zero outside.
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
    """Queries with a place look at points of one or several maps.

    The points start on rays, one direction for each head, the k-th k pixels out, all of equal
    weight.

    Args:
        channels: C, of queries, maps and what comes out.
        inner: width of the projected maps; `heads` must divide it.
        levels: how many maps there are.
        points: how many points a head looks at in each map.
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
        ray = ray / ray.abs().amax(-1, keepdim=True)  # on the sides of a square
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
        self, queries: Tensor, places: Tensor, maps: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """Queries `(B, N, C)` to `(B, N, C)`.

        Args:
            queries: `(B, N, C)`.
            places: `(N, 2)`, x and y of each query, from 0 to 1 across the maps; float32.
            maps: `(B, M, C)`, the pixels of all maps in a row, a map after the other.
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
        parts = torch.split(values, [height * width for height, width in sizes], -1)
        for level, (part, (height, width)) in enumerate(zip(parts, sizes, strict=True)):
            # in at least float32, whatever autocast made of the offsets: a place in a large map
            # has more digits than bfloat16
            point = places[:, None] + offsets[:, :, level] / places.new_tensor([width, height])
            read = F.grid_sample(
                part.reshape(len(part), -1, height, width).to(point.dtype),
                2 * point - 1,
                padding_mode="zeros",
                align_corners=False,
            )  # (B heads, C / heads, N, points)
            found = (read * weights[:, None, :, level]).sum(-1)
            total = found if total is None else total + found
        assert total is not None
        together = total.reshape(batch, -1, count).transpose(1, 2)
        out: Tensor = self.out(together.to(queries.dtype))
        return out


def reference_points(size: Size, device: torch.device | None = None) -> Tensor:
    """Centres of a map's pixels, `(height width, 2)`: x and y from 0 to 1 across the map."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) / side for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)
