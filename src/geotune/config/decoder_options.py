"""Sections of the decoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from geotune.config.base import OptionsModel, Share
from geotune.config.detector_options import FasterRcnn, Fcos, OrientedRcnn, Retinanet, RotatedFcos
from geotune.config.task_options import Level


class Linear(OptionsModel):
    """One 1x1 convolution on the maps that the encoder hands on."""

    level: ClassVar[Level] = "pixel"
    kind: Literal["linear"] = "linear"
    levels: Literal["all", "last"] = "all"


class Fcn(OptionsModel):
    """A few convolutions on the maps, brought to the finest of them."""

    level: ClassVar[Level] = "pixel"
    kind: Literal["fcn"] = "fcn"
    channels: PositiveInt = 128
    depth: PositiveInt = 2


class Unet(OptionsModel):
    """UNet's decoder: from coarse to fine, with skips."""

    level: ClassVar[Level] = "pixel"
    kind: Literal["unet"] = "unet"
    channels: list[PositiveInt] = Field(
        default=[256, 128, 64, 32, 16], min_length=1, description="widths, coarse to fine"
    )


class Upernet(OptionsModel):
    """UPerNet's decoder: pyramid pooling and a feature pyramid."""

    level: ClassVar[Level] = "pixel"
    kind: Literal["upernet"] = "upernet"
    channels: PositiveInt = 128


class GlobalPool(OptionsModel):
    """One answer an image: maps averaged over the image, then a linear layer."""

    level: ClassVar[Level] = "image"
    kind: Literal["global_pool"] = "global_pool"
    pool: Literal["mean", "attention"] = "mean"
    levels: Literal["last", "all"] = "last"
    dropout: Share = 0.0


Decoder = Annotated[
    Linear
    | Fcn
    | Unet
    | Upernet
    | GlobalPool
    | FasterRcnn
    | Retinanet
    | Fcos
    | RotatedFcos
    | OrientedRcnn,
    Field(discriminator="kind"),
]
