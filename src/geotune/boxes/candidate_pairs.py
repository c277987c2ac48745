"""Find pairs of boxes whose hulls intersect, the candidates for IoU."""

from __future__ import annotations

import shapely
import torch
from torch import Tensor

COMPARISONS_PER_CHUNK = 1 << 24
"""Brute-force comparisons per chunk."""


class BoxIndex:
    """Spatial index of horizontal boxes `(N, 4)`.

    On a CPU it is an STR tree, whose memory is proportional to N; on other devices queries compare
    all pairs in chunks.
    """

    def __init__(self, hulls: Tensor) -> None:
        self.hulls = hulls
        self.tree = shapely.STRtree(_diagonals(hulls)) if hulls.device.type == "cpu" else None

    def query(self, hulls: Tensor) -> tuple[Tensor, Tensor]:
        """Index pairs `(P)` and `(P)`: rows of `hulls` `(K, 4)`, ascending, and boxes they meet.

        Boxes that only touch are included.
        """
        if self.tree is not None:
            pairs = torch.from_numpy(self.tree.query(_diagonals(hulls)))
            return pairs[0], pairs[1]
        step = max(1, COMPARISONS_PER_CHUNK // max(1, len(self.hulls)))
        rows, columns = [], []
        for start in range(0, len(hulls), step):
            chunk = hulls[start : start + step, None]
            low = torch.maximum(chunk[..., :2], self.hulls[:, :2])
            high = torch.minimum(chunk[..., 2:], self.hulls[:, 2:])
            row, column = (low <= high).all(-1).nonzero(as_tuple=True)
            rows.append(row + start)
            columns.append(column)
        empty = torch.empty(0, dtype=torch.int64, device=hulls.device)
        return torch.cat([*rows, empty]), torch.cat([*columns, empty])


def _diagonals(hulls: Tensor) -> object:
    # A two-point line has the envelope of its box and needs less memory than a polygon.
    return shapely.linestrings(hulls.double().reshape(-1, 2, 2).numpy())
