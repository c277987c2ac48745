"""Options of learning from a teacher: the recipe's `distill` section."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from geotune.config.base import OptionsModel, invalid


class DistillOptions(OptionsModel):
    """What a small model learns from a finished run, its teacher, besides the labels."""

    run: Path = Field(description="folder of the teacher's finished run, of the same task and data")
    outputs_weight: NonNegativeFloat = Field(
        default=1.0, description="weight of the difference to the teacher's outputs"
    )
    features_weight: NonNegativeFloat = Field(
        default=1.0, description="weight of the difference to the teacher's feature maps"
    )
    temperature: PositiveFloat = Field(
        default=2.0,
        description="softens the class probabilities that are compared; unused in regression and "
        "counting",
    )
    cache: Literal["disk", "memory"] = Field(
        default="disk",
        description="where the teacher's outputs and maps are; on disk in train.cache_folder",
    )

    @model_validator(mode="after")
    def _learns_something(self) -> DistillOptions:
        if not self.outputs_weight and not self.features_weight:
            raise invalid(
                "distill.outputs_weight",
                "found 0, and distill.features_weight is 0 as well, so nothing is learned from the "
                "teacher; set one of them, or remove distill",
            )
        return self
