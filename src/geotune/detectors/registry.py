"""Every detector by the `kind` that a recipe gives it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from geotune.detectors.faster_rcnn import faster_rcnn
from geotune.detectors.fcos import fcos, rotated_fcos
from geotune.detectors.oriented_rcnn import oriented_rcnn
from geotune.detectors.retinanet import Retinanet

DETECTORS: dict[str, Callable[..., nn.Module]] = {
    "faster_rcnn": faster_rcnn,
    "retinanet": Retinanet,
    "fcos": fcos,
    "rotated_fcos": rotated_fcos,
    "oriented_rcnn": oriented_rcnn,
}
"""Each is called as `DETECTORS[kind](taps, classes, **values)` and makes a `Detector`."""
