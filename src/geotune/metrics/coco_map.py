"""COCO average precision of horizontal boxes, by pycocotools through torchmetrics."""

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
    """COCO average precision, for comparison with published results.

    Uses the 100 highest-scoring detections of each image. Small objects have an area below 32^2
    pixels, large ones above 96^2. `difficult` objects are treated as COCO's crowds.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        from torchmetrics.detection import MeanAveragePrecision  # takes seconds

        super().__init__()
        self.classes = tuple(classes)
        # torchmetrics' default levels are rounded to float32 and differ from COCO's.
        self.metric = MeanAveragePrecision(
            class_metrics=True,
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
        )
        self.metric.warn_on_many_detections = False  # COCO's own cap

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        return (*_NAMES, *(f"coco_ap/{name}" for name in self.classes))

    @torch.no_grad()
    def update(
        self, detections: Sequence[Detections], objects: Sequence[GroundTruthObjects]
    ) -> None:
        """Add images with horizontal boxes. Raises `GeotuneError` for other boxes."""
        for boxes in [d.boxes for d in detections] + [o.boxes for o in objects]:
            if boxes.shape[1] != HORIZONTAL:
                raise GeotuneError(
                    f"COCO metrics: boxes have {boxes.shape[1]} columns, expected 4 (horizontal "
                    "boxes); use DetectionMetrics for oriented boxes",
                    code="box-type-unsupported",
                )
        self.metric.update(
            [{"boxes": d.boxes, "scores": d.scores, "labels": d.classes} for d in detections],
            [
                {"boxes": o.boxes, "labels": o.classes, "iscrowd": o.ignored().long()}
                for o in objects
            ],
        )

    def compute(self) -> dict[str, float]:
        """Metrics over all images and classes, and `coco_ap/<class>`; NaN without objects."""
        computed: dict[str, Tensor] = self.metric.compute()
        values = {name: _value(computed[key]) for name, key in _NAMES.items()}
        by_class = dict.fromkeys(range(len(self.classes)), math.nan)
        classes, aps = computed["classes"].reshape(-1), computed["map_per_class"].reshape(-1)
        if len(classes):
            by_class |= {int(k): _value(ap) for k, ap in zip(classes, aps, strict=True)}
        return values | {f"coco_ap/{name}": by_class[k] for k, name in enumerate(self.classes)}

    def reset(self) -> None:
        """Discard all images."""
        self.metric.reset()


def _value(metric: Tensor) -> float:
    return float(metric) if metric >= 0 else math.nan  # torchmetrics returns -1 if undefined
