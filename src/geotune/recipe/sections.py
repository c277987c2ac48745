"""A recipe: the sections that it is made of."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

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
    bands: list[str] | PositiveInt | None = Field(
        None,
        description="band names in the order the model gets them, or how many there are",
    )
    patch_size: PositiveInt | None = Field(None, description="for models with a flexible patch")


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
