"""Sections of the tasks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from geotune.config.base import OptionsModel

Level = Literal["pixel", "object", "image"]
"""What an answer is of."""


class _Classes(OptionsModel):
    """What tasks with classes have."""

    classes: list[str] = Field(min_length=2)
    class_weights: list[PositiveFloat] | None = None

    @model_validator(mode="after")
    def _classes_fit(self) -> _Classes:
        _each_once(self.classes)
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise ValueError(
                f"task.class_weights has {len(self.class_weights)} values "
                f"for {len(self.classes)} classes"
            )
        return self


class Segment(_Classes):
    """A class for every pixel."""

    level: ClassVar[Level] = "pixel"
    kind: Literal["segment"] = "segment"
    loss: str = Field("ce+dice", description="ce, dice, focal, or their sum: ce+dice")

    @model_validator(mode="after")
    def _fits(self) -> Segment:
        if len(self.classes) > 255:
            raise ValueError(f"task.classes has {len(self.classes)} classes; at most 255 fit a map")
        parts = [part.strip() for part in self.loss.split("+")]
        unknown = [part for part in parts if part not in ("ce", "dice", "focal")]
        if unknown:
            raise ValueError(
                f"task.loss names {', '.join(map(repr, unknown))}; "
                "expected ce, dice, focal or a sum such as ce+dice"
            )
        return self


class Classify(_Classes):
    """A class for every image, or with `several` any number of them."""

    level: ClassVar[Level] = "image"
    kind: Literal["classify"] = "classify"
    multilabel: bool = Field(False, description="an image may be of several classes, or of none")
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class Regress(OptionsModel):
    """A number for every pixel, or for every image."""

    kind: Literal["regress"] = "regress"
    level: Level = "pixel"
    quantity: str = Field("value", min_length=1, description="what the number is, for people")
    unit: str = Field("", description="in what it is measured, for people")
    loss: Literal["l1", "l2", "huber"] = "huber"
    mean: float | None = Field(
        None, description="of the labels, to standardise them; by default the training part's"
    )
    std: PositiveFloat | None = Field(
        None, description="their standard deviation; by default the training part's"
    )


class Density(OptionsModel):
    """How many objects there are: a map whose sum is their number, learnt from points."""

    level: ClassVar[Level] = "pixel"
    kind: Literal["density"] = "density"
    objects: str = Field("objects", min_length=1, description="what is counted, for people")
    loss: Literal["l1", "l2", "huber"] = "l2"
    std: PositiveFloat | None = Field(
        None,
        description="standard deviation of the density, in which the loss is measured; by default "
        "the training part's",
    )


class Detect(OptionsModel):
    """Objects, each a box with a class."""

    level: ClassVar[Level] = "object"
    kind: Literal["detect"] = "detect"
    classes: list[str] = Field(min_length=1, description="of objects; background is none of them")
    boxes: Literal["horizontal", "oriented", "points"] = Field(
        "horizontal",
        description="points: boxes of data.point_size to learn from, places to judge by",
    )
    match_radius_m: PositiveFloat = Field(
        3.0, description="of points: how far from an object, in metres, what is found may lie"
    )
    pixel_m: PositiveFloat | None = Field(
        None, description="of points: metres a pixel; by default the files'"
    )

    @model_validator(mode="after")
    def _fits(self) -> Detect:
        _each_once(self.classes)
        return self


def _each_once(classes: list[str]) -> None:
    if len(set(classes)) != len(classes):
        raise ValueError(f"task.classes names a class twice: {', '.join(classes)}")


Task = Annotated[Segment | Detect | Classify | Regress | Density, Field(discriminator="kind")]
