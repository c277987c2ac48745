"""What a detector makes of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from geotune.boxes.structures import Detections


@dataclass(frozen=True)
class DetectorOutput:
    """What there is to learn from, and what was found; `[i : i + 1]` is one image's share.

    Attributes:
        losses: scalars by name; none where the detector was not told what there is. They are of
            the batch as a whole, so a share of it has none.
        detections: of each image, best first; none while it trains.
    """

    losses: Mapping[str, Tensor]
    detections: Sequence[Detections]

    def __getitem__(self, which: slice) -> DetectorOutput:
        """Of some images."""
        return DetectorOutput({}, self.detections[which])
