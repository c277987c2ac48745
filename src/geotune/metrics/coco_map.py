"""COCO's average precision of horizontal boxes, by pycocotools through torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geotune.boxes.oriented import HORIZONTAL
from geotune.boxes.structures import Detections, GroundTruthObjects
from geotune.errors import GeotuneError

_NAMES = {
    "coco_ap": "map",
    "coco_ap50": "map_50",
    "coco_ap75": "map_75",
    "coco_ap_small": "map_small",
    "coco_ap_medium": "map_medium",
    "coco_ap_large": "map_large",
}


class CocoMetrics(nn.Module):
    """AP as COCO defines it, for comparison with published figures.

    At most 100 detections an image count, the best; small objects have an area below 32^2 pixels,
    large ones above 96^2. `difficult` objects are COCO's crowds.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        from torchmetrics.detection import MeanAveragePrecision  # takes seconds

        super().__init__()
        self.classes = tuple(classes)
        # Its own levels are float32's, some of which COCO's recalls do not reach.
        self.metric = MeanAveragePrecision(
            class_metrics=True,
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
        )
        self.metric.warn_on_many_detections = False  # the cap is COCO's, and said above

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `compute` gives."""
        return (*_NAMES, *(f"coco_ap/{name}" for name in self.classes))

    @torch.no_grad()
    def update(
        self, detections: Sequence[Detections], objects: Sequence[GroundTruthObjects]
    ) -> None:
        """Count images of horizontal boxes. Raises `GeotuneError` for others."""
        for boxes in [d.boxes for d in detections] + [o.boxes for o in objects]:
            if boxes.shape[1] != HORIZONTAL:
                raise GeotuneError(
                    f"COCO's AP was given boxes of {boxes.shape[1]} columns, expected horizontal "
                    "ones (4 columns); use DetectionMetrics for oriented ones"
                )
        self.metric.update(
            [{"boxes": d.boxes, "scores": d.scores, "labels": d.classes} for d in detections],
            [
                {"boxes": o.boxes, "labels": o.classes, "iscrowd": o.ignored().long()}
                for o in objects
            ],
        )

    def compute(self) -> dict[str, float]:
        """Figures over all images and classes, and `coco_ap/<class>`; NaN where nothing is."""
        computed: dict[str, Tensor] = self.metric.compute()
        values = {name: _value(computed[theirs]) for name, theirs in _NAMES.items()}
        each = dict.fromkeys(range(len(self.classes)), math.nan)
        classes, aps = computed["classes"].reshape(-1), computed["map_per_class"].reshape(-1)
        if len(classes):
            each |= {int(k): _value(ap) for k, ap in zip(classes, aps, strict=True)}
        return values | {f"coco_ap/{name}": each[k] for k, name in enumerate(self.classes)}

    def reset(self) -> None:
        """Forget all images."""
        self.metric.reset()


def _value(figure: Tensor) -> float:
    return float(figure) if figure >= 0 else math.nan  # -1: nothing to average
