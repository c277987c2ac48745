"""Options of the backbone: the recipe's `backbone` section and `geotune.backbone`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from geotune.config.base import OptionsModel

Combine = Literal["mean", "max", "concat", "last"]
Metadata = Literal["time", "location"]


class BackboneOptions(OptionsModel):
    """Which pretrained encoder, with which weights and bands."""

    name: str = Field(
        description="provider/model, such as timm/resnet18; see geotune list backbones"
    )
    weights: Path | None = Field(
        default=None,
        description="local file or folder with the weights; also backbone.safetensors of geotune "
        "pretrain, or hub:ORG/NAME[@REVISION] with one",
    )
    pretrained: bool = Field(default=True, description="false: random weights")
    bands: tuple[str, ...] | PositiveInt | dict[str, tuple[str, ...]] | None = Field(
        default=None,
        description="band names in the order of the model's input, or their number; by modality "
        "for models of several; by default those of the files",
    )
    patch_size: PositiveInt | None = Field(
        default=None, description="in pixels, for models with a flexible patch"
    )
    timesteps: PositiveInt = Field(
        default=1, description="dates per image, for models with a time axis"
    )
    combine: Combine = Field(
        default="mean", description="how the feature maps of the dates are combined"
    )
    metadata: tuple[Metadata, ...] = Field(
        default=(), description="further inputs of the model, read from the files"
    )
    wavelengths: dict[str, PositiveFloat] | None = Field(
        default=None, description="of bands that the model does not know by name, in micrometres"
    )
    gsd: PositiveFloat | None = Field(
        default=None,
        description="ground sampling distance in metres, for models that take it; by default that "
        "of the files",
    )
    new_bands: Literal["refuse", "mean"] = Field(
        default="refuse",
        description="bands that the model was not pretrained with: an error, or initialised from "
        "the mean of the known bands",
    )
    weights_bands: tuple[str, ...] | None = Field(
        default=None,
        description="band names of the weights' first layer, in order, for timm weights of other "
        "bands than the images'; weights are then matched by name",
    )
