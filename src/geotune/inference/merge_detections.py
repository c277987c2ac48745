"""Merge the detections of overlapping windows, in bounded memory.

    |--- window ---|                 A box that is cut by an inner edge of its window is dropped if
           |--- window ---|          a neighbour contains it completely. Non-maximum suppression
       [ a ]   [ b ]                 is then applied across windows.

Windows are added row by row. Detections more than one window above the next row are final if
objects are smaller than two windows; only those that may still be suppressed are kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geotune.boxes.nms import nms
from geotune.boxes.oriented import hull
from geotune.boxes.structures import Detections
from geotune.boxes.transforms import translate

EDGE_MARGIN = 1.0
"""A box within this distance of an edge, in pixels, counts as cut."""


class DetectionMerger:
    """Merges the detections of windows into those of the scene.

    Args:
        tops: first rows of the windows, ascending.
        lefts: first columns of the windows.
        window: side of a window in pixels.
        shape: (H, W) of the scene.
        nms_threshold: a box is dropped if its IoU with a better box of its class exceeds this.
    """

    def __init__(
        self,
        tops: Sequence[int],
        lefts: Sequence[int],
        window: int,
        shape: tuple[int, int],
        nms_threshold: float,
    ) -> None:
        self.tops, self.lefts = (torch.tensor(starts) for starts in (tops, lefts))
        self.window = window
        self.shape = shape
        self.nms_threshold = nms_threshold
        self._pending: list[Detections] = []
        self._final_row = -torch.inf  # boxes that end above this row were returned

    def add(self, top: int, left: int, detections: Detections) -> None:
        """Add the detections of a window, in its pixel coordinates."""
        boxes = translate(detections.boxes.double().cpu(), float(left), float(top))
        detections = Detections(boxes, detections.scores.cpu(), detections.classes.cpu())
        self._pending.append(detections[~self._complete_elsewhere(hull(boxes), top, left)])

    def pop_final(self, row: float = torch.inf) -> Detections | None:
        """Detections that no window from `row` on can change, in scene coordinates.

        None if nothing was added yet.
        """
        if not self._pending:
            return None
        pending = Detections(
            *(
                torch.cat([getattr(detections, name) for detections in self._pending])
                for name in ("boxes", "scores", "classes")
            )
        )
        ends = hull(pending.boxes)[:, 3]
        final_row = row - self.window
        kept = nms(pending.boxes, pending.scores, self.nms_threshold, pending.classes)
        final = kept[(ends[kept] < final_row) & (ends[kept] >= self._final_row)]
        # returned detections still suppress others until none can overlap them
        self._pending = [pending[ends >= final_row - 2 * self.window]]
        self._final_row = final_row
        return pending[final]

    def __len__(self) -> int:
        """Number of detections in memory."""
        return sum(len(detections.scores) for detections in self._pending)

    def _complete_elsewhere(self, hulls: Tensor, top: int, left: int) -> Tensor:
        """Which boxes `(N, 4)` are cut by their window, but complete in another one."""
        height, width = self.shape
        cut_x, whole_x = self._along(hulls[:, 0], hulls[:, 2], left, self.lefts, width)
        cut_y, whole_y = self._along(hulls[:, 1], hulls[:, 3], top, self.tops, height)
        return (cut_x | cut_y) & whole_x & whole_y

    def _along(
        self, low: Tensor, high: Tensor, start: int, starts: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Along one axis: whether the window at `start` cuts a box, and whether any contains it."""
        end = start + self.window
        cut = ((low < start + EDGE_MARGIN) & (start > 0)) | (
            (high > end - EDGE_MARGIN) & (end < length)
        )
        low, high = low.clamp(min=0), high.clamp(max=length)
        inner = torch.where(starts > 0, starts + EDGE_MARGIN, starts.double())
        best = torch.searchsorted(inner, low, right=True).sub(1).clamp(min=0)
        last = starts[best] + self.window
        reach = torch.where(last < length, last - EDGE_MARGIN, last.double().clamp(min=length))
        return cut, (inner[best] <= low) & (high <= reach)
