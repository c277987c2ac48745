"""From what is found in overlapping windows to the objects of a scene, in memory that stays.

    |--- window ---|                 A box that a window's inner edge cuts is told worse there than
           |--- window ---|          in a neighbour that sees it whole: it goes. Of what is left the
       [ a ]   [ b ]                 better suppresses the worse, across windows, as within one.

Windows come row by row. What lies a window above the next row is final, as long as objects are
smaller than two windows, and is handed on; only what may still meet something is held.
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
"""Pixels from an edge within which a box counts as cut."""


class DetectionMerger:
    """Takes the detections of windows, and gives those of the scene.

    Args:
        tops: first rows of the windows, rising.
        lefts: first columns.
        window: their side in pixels.
        shape: of the scene, (H, W).
        nms_threshold: IoU with a better one of its class above which a box goes.
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
        self._held: list[Detections] = []
        self._done = -torch.inf  # what ends above this row was handed on

    def add(self, top: int, left: int, found: Detections) -> None:
        """Take what was found in a window, in its pixels."""
        boxes = translate(found.boxes.double().cpu(), float(left), float(top))
        found = Detections(boxes, found.scores.cpu(), found.classes.cpu())
        self._held.append(found[~self._complete_elsewhere(hull(boxes), top, left)])

    def pop_final(self, row: float = torch.inf) -> Detections | None:
        """What no window from `row` on can change, in pixels of the scene; None before any."""
        if not self._held:
            return None
        held = Detections(
            *(
                torch.cat([getattr(found, name) for found in self._held])
                for name in ("boxes", "scores", "classes")
            )
        )
        ends = hull(held.boxes)[:, 3]
        line = row - self.window
        stays = nms(held.boxes, held.scores, self.nms_threshold, held.classes)
        final = stays[(ends[stays] < line) & (ends[stays] >= self._done)]
        # What was handed on still suppresses what it meets, until nothing can meet it.
        self._held = [held[ends >= line - 2 * self.window]]
        self._done = line
        return held[final]

    def _complete_elsewhere(self, hulls: Tensor, top: int, left: int) -> Tensor:
        """Which boxes `(N, 4)` of a window are cut by it, but not by another."""
        height, width = self.shape
        cut_x, whole_x = self._along(hulls[:, 0], hulls[:, 2], left, self.lefts, width)
        cut_y, whole_y = self._along(hulls[:, 1], hulls[:, 3], top, self.tops, height)
        return (cut_x | cut_y) & whole_x & whole_y

    def _along(
        self, low: Tensor, high: Tensor, start: int, starts: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Along one axis: whether the window that starts there cuts, and whether any holds."""
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
