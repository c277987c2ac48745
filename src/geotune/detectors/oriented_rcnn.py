"""Oriented R-CNN (ICCV 2021, arXiv 2108.05699): two stages, oriented boxes.

Anchors are horizontal, proposals oriented (`MidpointOffsetCoder`). The second stage pools features
in the frame of each proposal and is therefore invariant to an object's orientation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from geotune.config.decoder_options import OrientedRcnnOptions
from geotune.detectors.box_coders import MidpointOffsetCoder, OrientedDeltaCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.detectors.two_stage import TwoStage, TwoStageCoders
from geotune.types import Tap


def oriented_rcnn(taps: Sequence[Tap], num_outputs: int, options: OrientedRcnnOptions) -> nn.Module:
    """Build a `TwoStage` detector."""
    return TwoStage(
        FeaturePyramid(taps, options.channels, options.min_stride, options.num_levels),
        num_outputs,
        options.channels,
        options.hidden,
        options.anchor_size,
        Postprocessor(options.score_threshold, options.nms_threshold, options.max_detections),
        TwoStageCoders(MidpointOffsetCoder, OrientedDeltaCoder, (10.0, 10.0, 5.0, 5.0, 10.0)),
        oriented=options.oriented,
    )
