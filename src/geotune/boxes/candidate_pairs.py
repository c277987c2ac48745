"""Which boxes may overlap: pairs whose hulls meet."""

from __future__ import annotations

import shapely
import torch
from torch import Tensor

_CELLS = 1 << 24
"""Comparisons at once where there is no tree."""


class Neighbours:
    """Finds among horizontal boxes `(N, 4)` those that others meet.

    On a CPU by an STR tree, whose memory is in proportion to N; on other devices by comparing
    everything with everything, a piece at a time.
    """

    def __init__(self, hulls: Tensor) -> None:
        self.hulls = hulls
        self.tree = shapely.STRtree(_diagonals(hulls)) if hulls.device.type == "cpu" else None

    def of(self, hulls: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs `(P)` and `(P)`: rows of `hulls` `(K, 4)`, rising, and boxes that meet them.

        Boxes that only touch meet.
        """
        if self.tree is not None:
            pairs = torch.from_numpy(self.tree.query(_diagonals(hulls)))
            return pairs[0], pairs[1]
        step = max(1, _CELLS // max(1, len(self.hulls)))
        rows, found = [], []
        for start in range(0, len(hulls), step):
            piece = hulls[start : start + step, None]
            low = torch.maximum(piece[..., :2], self.hulls[:, :2])
            high = torch.minimum(piece[..., 2:], self.hulls[:, 2:])
            row, column = (low <= high).all(-1).nonzero(as_tuple=True)
            rows.append(row + start)
            found.append(column)
        none = torch.empty(0, dtype=torch.int64, device=hulls.device)
        return torch.cat([*rows, none]), torch.cat([*found, none])


def _diagonals(hulls: Tensor) -> object:
    # A line of two points has the box's envelope, in less memory than its outline.
    return shapely.linestrings(hulls.double().reshape(-1, 2, 2).numpy())
