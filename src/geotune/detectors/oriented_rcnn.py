"""Oriented R-CNN (ICCV 2021, arXiv 2108.05699): oriented boxes in two stages.

Anchors are horizontal; proposals are oriented boxes, told by where they touch their hull
(`coders.Midpoints`); the second stage reads features along a proposal's sides, so that to it an
object looks the same at any angle.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from geotune.detectors.box_coders import MidpointOffsetCoder, OrientedDeltaCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.detectors.two_stage import TwoStage, TwoStageConfig
from geotune.types import Tap


def oriented_rcnn(
    taps: Sequence[Tap],
    num_outputs: int,
    *,
    channels: int = 256,
    hidden: int = 1024,
    min_stride: float = 4.0,
    num_levels: int = 5,
    anchor_size: float = 4.0,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.1,
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
        TwoStageConfig(MidpointOffsetCoder, OrientedDeltaCoder, (10.0, 10.0, 5.0, 5.0, 10.0)),
        oriented=True,
    )
