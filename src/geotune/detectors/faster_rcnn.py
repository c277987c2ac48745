"""Faster R-CNN (arXiv 1506.01497) on a feature pyramid: two stages, horizontal boxes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from geotune.config.decoder_options import FasterRcnnOptions
from geotune.detectors.box_coders import HorizontalDeltaCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.detectors.two_stage import TwoStage, TwoStageCoders
from geotune.types import Tap


def faster_rcnn(taps: Sequence[Tap], num_outputs: int, options: FasterRcnnOptions) -> nn.Module:
    """Build a `TwoStage` detector."""
    return TwoStage(
        FeaturePyramid(taps, options.channels, options.min_stride, options.num_levels),
        num_outputs,
        options.channels,
        options.hidden,
        options.anchor_size,
        Postprocessor(options.score_threshold, options.nms_threshold, options.max_detections),
        TwoStageCoders(HorizontalDeltaCoder, HorizontalDeltaCoder, (10.0, 10.0, 5.0, 5.0)),
        oriented=options.oriented,
    )
