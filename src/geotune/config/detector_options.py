"""Sections of the detectors: decoders whose outputs are objects."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from geotune.config.base import OptionsModel, Share
from geotune.config.task_options import Level


class Detector(OptionsModel):
    """What every detector has."""

    level: ClassVar[Level] = "object"
    oriented: ClassVar[bool] = False
    kind: str
    channels: PositiveInt = Field(256, description="width of every level")
    min_stride: PositiveFloat = Field(
        4.0, description="stride of the finest level; an object should be larger than that"
    )
    num_levels: PositiveInt = Field(5, description="how many there are at least")
    score_threshold: Share = 0.05
    nms_threshold: Share = Field(
        0.5, description="overlap (IoU) with a better box of its class above which a box goes"
    )
    max_detections: PositiveInt = Field(1000, description="of a window")


class _Anchored(Detector):
    anchor_size: PositiveFloat = Field(
        4.0, description="side of the smallest anchors of a level, in its strides"
    )


class FasterRcnn(_Anchored):
    """Faster R-CNN: horizontal boxes in two stages."""

    kind: Literal["faster_rcnn"] = "faster_rcnn"
    hidden: PositiveInt = Field(1024, description="width of the second stage")


class Retinanet(_Anchored):
    """RetinaNet: horizontal boxes in one stage, with anchors."""

    kind: Literal["retinanet"] = "retinanet"


class Fcos(Detector):
    """FCOS: horizontal boxes in one stage, without anchors."""

    kind: Literal["fcos"] = "fcos"
    depth: PositiveInt = Field(4, description="hidden convolutions of each branch")
    nms_threshold: Share = 0.6


class RotatedFcos(Detector):
    """FCOS for oriented boxes."""

    oriented: ClassVar[bool] = True
    kind: Literal["rotated_fcos"] = "rotated_fcos"
    depth: PositiveInt = Field(4, description="hidden convolutions of each branch")
    nms_threshold: Share = 0.1


class OrientedRcnn(_Anchored):
    """Oriented R-CNN: oriented boxes in two stages."""

    oriented: ClassVar[bool] = True
    kind: Literal["oriented_rcnn"] = "oriented_rcnn"
    hidden: PositiveInt = Field(1024, description="width of the second stage")
    nms_threshold: Share = 0.1
