"""Faster R-CNN (arXiv 1506.01497) on a feature pyramid: horizontal boxes in two stages."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from geotune.detectors.box_coders import HorizontalDeltaCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.detectors.two_stage import TwoStage, TwoStageConfig
from geotune.types import Tap


def faster_rcnn(
    taps: Sequence[Tap],
    num_outputs: int,
    *,
    channels: int = 256,
    hidden: int = 1024,
    min_stride: float = 4.0,
    num_levels: int = 5,
    anchor_size: float = 4.0,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 1000,
) -> nn.Module:
    """A `TwoStage`. `anchor_size` is the side of each level's anchors, in its strides."""
    return TwoStage(
        FeaturePyramid(taps, channels, min_stride, num_levels),
        num_outputs,
        channels,
        hidden,
        anchor_size,
        Postprocessor(score_threshold, nms_threshold, max_detections),
        TwoStageConfig(HorizontalDeltaCoder, HorizontalDeltaCoder, (10.0, 10.0, 5.0, 5.0)),
        oriented=False,
    )
