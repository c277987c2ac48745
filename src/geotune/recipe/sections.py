"""A recipe: the sections that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from geotune.recipe.data import Data
from geotune.recipe.decoders import Decoder
from geotune.recipe.methods import Method
from geotune.recipe.section import Section
from geotune.recipe.tasks import Task
from geotune.recipe.train import Train


class Backbone(Section):
    """Which pretrained encoder, with which weights and bands."""

    name: str
    weights: Path | None = Field(None, description="file or folder with the weights")
    pretrained: bool = Field(True, description="false asks for random weights")
    bands: list[str] | PositiveInt | dict[str, list[str]] | None = Field(
        None,
        description="band names in the order the model gets them, or how many there are; by "
        "modality for models of several",
    )
    patch_size: PositiveInt | None = Field(None, description="for models with a flexible patch")
    timesteps: PositiveInt = Field(1, description="dates of an image, for models with a time axis")
    combine: Literal["mean", "max", "concat", "last"] = Field(
        "mean", description="how the maps of the dates become one"
    )
    metadata: list[Literal["time", "location"]] = Field(
        default_factory=list, description="what the model is given beside the images"
    )
    wavelengths: dict[str, PositiveFloat] | None = Field(
        None, description="of bands without a known name, in micrometres"
    )
    gsd: PositiveFloat | None = Field(
        None, description="metres a pixel, for models that take it; by default the files'"
    )
    new_bands: Literal["refuse", "mean"] = Field(
        "refuse",
        description="bands that the model has never seen: refused, or started from the mean",
    )


class Sections(Section):
    """What describes a model without its data and training."""

    backbone: Backbone
    method: Method
    decoder: Decoder
    task: Task


class Recipe(Sections):
    """The whole recipe."""

    data: Data
    train: Train = Train()
