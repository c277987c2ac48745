"""Sections of the tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from geotune.recipe.section import Section


class Segment(Section):
    """A class for every pixel."""

    kind: Literal["segment"] = "segment"
    classes: list[str] = Field(min_length=2)
    loss: str = Field("ce+dice", description="ce, dice, focal, or their sum: ce+dice")
    class_weights: list[PositiveFloat] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Segment:
        _each_once(self.classes)
        if len(self.classes) > 255:
            raise ValueError(f"task.classes has {len(self.classes)} classes; at most 255 fit a map")
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise ValueError(
                f"task.class_weights has {len(self.class_weights)} values "
                f"for {len(self.classes)} classes"
            )
        parts = [part.strip() for part in self.loss.split("+")]
        unknown = [part for part in parts if part not in ("ce", "dice", "focal")]
        if unknown:
            raise ValueError(
                f"task.loss names {', '.join(map(repr, unknown))}; "
                "expected ce, dice, focal or a sum such as ce+dice"
            )
        return self


class Detect(Section):
    """Objects, each a box with a class."""

    kind: Literal["detect"] = "detect"
    classes: list[str] = Field(min_length=1, description="of objects; background is none of them")
    boxes: Literal["horizontal", "oriented"] = "horizontal"

    @model_validator(mode="after")
    def _fits(self) -> Detect:
        _each_once(self.classes)
        return self


def _each_once(classes: list[str]) -> None:
    if len(set(classes)) != len(classes):
        raise ValueError(f"task.classes names a class twice: {', '.join(classes)}")


Task = Annotated[Segment | Detect, Field(discriminator="kind")]
