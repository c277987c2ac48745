"""Sections of the tuning methods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from geotune.recipe.section import Section, Share


class Full(Section):
    """Every parameter trains."""

    kind: Literal["full"] = "full"
    stem: int = Field(
        32, ge=0, description="width of the convolutional branch on the image; 0: none"
    )


class Frozen(Section):
    """Nothing in the backbone trains."""

    kind: Literal["frozen"] = "frozen"
    stem: int = Field(32, ge=0)


class Lora(Section):
    """Low-rank updates of the backbone's layers."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = 16
    alpha: PositiveFloat = 16
    dropout: Share = 0.0
    targets: list[str] | None = Field(
        None, description="layer names; by default query, value and MLP"
    )
    stem: int = Field(32, ge=0)


class Est(Section):
    """Efficient side-tuning: a small network beside the frozen backbone."""

    kind: Literal["est"] = "est"
    reduction: PositiveInt = 8
    min_width: PositiveInt = 64
    fuse: Literal["sum", "side"] = "side"
    every: PositiveInt | None = Field(None, description="tap every n-th block; by default by depth")
    kernel_size: PositiveInt = 3
    stem: int = Field(32, ge=0)


Method = Annotated[Full | Frozen | Lora | Est, Field(discriminator="kind")]
