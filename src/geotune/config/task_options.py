"""Options of the tasks: the recipe's `task` section and the constructors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from geotune.config.base import OptionsModel, Registered, invalid
from geotune.errors import GeotuneError
from geotune.registry import TASKS

Level = Literal["pixel", "object", "image"]
"""What a prediction is for."""

RegressionLoss = Literal["l1", "l2", "huber"]
LOSS_TERMS = ("ce", "dice", "focal")


class TaskOptions(OptionsModel):
    """Options of a task.

    A task has a `kind`, and a `level` that its decoder must share.

    Attributes:
        data_kinds: kinds of data with labels inside the image that the task can be trained on.
        data_keys: keys of `data` that only this task, and others that name them too, can use.
    """

    data_kinds: ClassVar[tuple[str, ...]] = ()
    data_keys: ClassVar[tuple[str, ...]] = ()


class ClassesOptions(TaskOptions):
    """Options of tasks with mutually exclusive or multiple classes."""

    classes: list[str] = Field(min_length=2, description="class names, in the order of the outputs")
    class_weights: list[PositiveFloat] | None = Field(
        default=None, description="weight of each class in the loss"
    )

    @field_validator("classes")
    @classmethod
    def _unique(cls, classes: list[str]) -> list[str]:
        return _unique_names(classes)

    @model_validator(mode="after")
    def _one_weight_per_class(self) -> ClassesOptions:
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise invalid(
                "task.class_weights",
                f"found {len(self.class_weights)} values for {len(self.classes)} classes; give one "
                "for each class, in the order of task.classes",
            )
        return self


class SegmentOptions(ClassesOptions):
    """Semantic segmentation: a class for every pixel."""

    level: ClassVar[Level] = "pixel"
    data_kinds: ClassVar[tuple[str, ...]] = ("scenes", "chips", "synthetic")
    data_keys: ClassVar[tuple[str, ...]] = (
        "class_values",
        "class_field",
        "ignore_values",
        "unlabelled",
    )

    kind: Literal["segment"] = "segment"
    loss: str = Field(default="ce+dice", description="ce, dice, focal, or a sum such as ce+dice")

    @field_validator("classes")
    @classmethod
    def _fits_uint8(cls, classes: list[str]) -> list[str]:
        if len(classes) > 255:
            raise invalid("task.classes", f"found {len(classes)} classes, expected at most 255")
        return classes

    @field_validator("loss")
    @classmethod
    def _known_terms(cls, loss: str) -> str:
        unknown = [term for term in loss.split("+") if term.strip() not in LOSS_TERMS]
        if unknown:
            raise invalid(
                "task.loss",
                f"found {', '.join(repr(term.strip()) for term in unknown)}, expected "
                f"{', '.join(LOSS_TERMS)} or a sum such as ce+dice",
            )
        return loss


class ClassifyOptions(ClassesOptions):
    """Image classification: one class per image, or several."""

    level: ClassVar[Level] = "image"

    kind: Literal["classify"] = "classify"
    multilabel: bool = Field(
        default=False, description="an image can have several classes, or none"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="arXiv 1512.00567, section 7"
    )


class RegressOptions(TaskOptions):
    """Regression: a value for every pixel, or for every image."""

    data_kinds: ClassVar[tuple[str, ...]] = ("scenes", "chips")
    data_keys: ClassVar[tuple[str, ...]] = ("label_band",)

    kind: Literal["regress"] = "regress"
    level: Literal["pixel", "image"] = Field(default="pixel", description="what has a value")
    quantity: str = Field(
        default="value", min_length=1, description="name of the value, for reports"
    )
    unit: str = Field(default="", description="unit of the value, for reports")
    loss: RegressionLoss = Field(default="huber", description="of standardised values")
    mean: float | None = Field(
        default=None,
        description="of the labels, to standardise them; by default the training split's",
    )
    std: PositiveFloat | None = Field(
        default=None,
        description="standard deviation of the labels; by default the training split's",
    )


class DensityOptions(TaskOptions):
    """Counting by density estimation: a map whose sum is the number of objects."""

    level: ClassVar[Level] = "pixel"
    data_kinds: ClassVar[tuple[str, ...]] = ("scenes",)
    data_keys: ClassVar[tuple[str, ...]] = ("sigma", "points", "missing_labels")

    kind: Literal["density"] = "density"
    objects: str = Field(
        default="objects", min_length=1, description="what is counted, for reports"
    )
    loss: RegressionLoss = Field(default="l2", description="of standardised densities")
    std: PositiveFloat | None = Field(
        default=None,
        description="standard deviation of the density, the unit of the loss; by default the "
        "training split's",
    )


class DetectOptions(TaskOptions):
    """Object detection: horizontal boxes, oriented boxes, or points."""

    level: ClassVar[Level] = "object"
    data_kinds: ClassVar[tuple[str, ...]] = ("scenes",)  # image folders too: scenes: images/*.png
    data_keys: ClassVar[tuple[str, ...]] = (
        "class_values",
        "class_field",
        "missing_labels",
        "format",
        "min_visibility",
        "point_size",
        "other_classes",
    )

    kind: Literal["detect"] = "detect"
    classes: list[str] = Field(
        min_length=1, description="classes of objects, without a background class"
    )
    boxes: Literal["horizontal", "oriented", "points"] = Field(
        default="horizontal",
        description="points: trained as boxes of data.point_size, evaluated by box centres",
    )
    match_radius_m: PositiveFloat = Field(
        default=3.0,
        description="points: maximum distance of a detection from its object, in metres",
    )
    pixel_m: PositiveFloat | None = Field(
        default=None, description="points: metres per pixel; by default read from the files"
    )

    @field_validator("classes")
    @classmethod
    def _unique(cls, classes: list[str]) -> list[str]:
        return _unique_names(classes)


class ReconstructOptions(TaskOptions):
    """Masked reconstruction of images without labels, to continue a backbone's pretraining."""

    level: ClassVar[Level] = "pixel"
    data_kinds: ClassVar[tuple[str, ...]] = ("scenes", "chips", "images", "synthetic")

    kind: Literal["reconstruct"] = "reconstruct"
    mask_ratio: float = Field(
        default=0.6,
        gt=0,
        lt=1,
        description="share of the patches with data that are hidden from the model",
    )
    patch: PositiveInt = Field(
        default=16,
        description="side of the patches in pixels, a divisor of data.window; a multiple of the "
        "backbone's patch size hides whole tokens",
    )
    teacher_weight: NonNegativeFloat = Field(
        default=1.0,
        description="weight of the cosine distance to the features of the original backbone, the "
        "teacher, which sees the whole image; 0: no teacher",
    )

    def check_window(self, window: int) -> None:
        """Raise `GeotuneError` if patches do not divide windows of that side in pixels."""
        if problem := self.window_problem(window):
            raise GeotuneError(
                f"task.patch: {problem}", code="settings-incompatible", key="task.patch"
            )

    def window_problem(self, window: int) -> str:
        """Why patches do not fit windows of that side in pixels; empty if they do."""
        if window % self.patch == 0 and window > self.patch:
            return ""
        divisors = [side for side in range(4, window // 2 + 1) if window % side == 0]
        advice = f"use one of {', '.join(map(str, divisors))}" if divisors else "use larger windows"
        return (
            f"found {self.patch}, which does not divide data.window {window} into several patches; "
            f"{advice}, or another data.window"
        )


def _unique_names(classes: list[str]) -> list[str]:
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise invalid("task.classes", f"found {', '.join(twice)} more than once")
    return classes


if TYPE_CHECKING:
    TaskSection = (
        SegmentOptions
        | DetectOptions
        | ClassifyOptions
        | RegressOptions
        | DensityOptions
        | ReconstructOptions
    )
else:
    TaskSection = Annotated[TaskOptions, Registered(TASKS)]
