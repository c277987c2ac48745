"""Sections of the decoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from geotune.recipe.section import Section


class Linear(Section):
    """One 1x1 convolution on the maps that the encoder hands on."""

    kind: Literal["linear"] = "linear"
    levels: Literal["all", "last"] = "all"


class Fcn(Section):
    """A few convolutions on the maps, brought to the finest of them."""

    kind: Literal["fcn"] = "fcn"
    channels: PositiveInt = 128
    depth: PositiveInt = 2


class Unet(Section):
    """UNet's decoder: from coarse to fine, with skips."""

    kind: Literal["unet"] = "unet"
    channels: list[PositiveInt] = Field(
        default=[256, 128, 64, 32, 16], min_length=1, description="widths, coarse to fine"
    )


class Upernet(Section):
    """UPerNet's decoder: pyramid pooling and a feature pyramid."""

    kind: Literal["upernet"] = "upernet"
    channels: PositiveInt = 128


Decoder = Annotated[Linear | Fcn | Unet | Upernet, Field(discriminator="kind")]
