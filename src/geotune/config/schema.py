"""A recipe: the sections that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from geotune.config.base import OptionsModel
from geotune.config.data_options import DataSection, NamedOptions
from geotune.config.decoder_options import DecoderSection, DetectorOptions
from geotune.config.method_options import MethodSection
from geotune.config.published_defaults import fits_named, with_named
from geotune.config.task_options import DetectOptions, TaskSection
from geotune.config.train_options import TrainOptions

DATA_OF = {
    "segment": ("scenes", "chips", "synthetic"),
    "regress": ("scenes", "chips"),
    "density": ("scenes",),
    "detect": ("scenes",),  # folders of images too: scenes: images/*.png
}
"""Kinds of data that have labels inside their images, by the task."""

ONLY_OF = {
    "class_values": ("segment", "detect"),
    "class_field": ("segment", "detect"),
    "ignore_values": ("segment",),
    "unlabelled": ("segment",),
    "label_band": ("regress",),
    "sigma": ("density",),
    "points": ("density",),
    "missing_labels": ("density", "detect"),
    "format": ("detect",),
    "min_visibility": ("detect",),
    "point_size": ("detect",),
    "other_classes": ("detect",),
}
"""Keys of the data that only some kinds of task take."""

DECODERS_OF = {
    "pixel": "linear, fcn, unet or upernet",
    "object": "faster_rcnn, retinanet, fcos, rotated_fcos or oriented_rcnn",
    "image": "global_pool",
}
"""Kinds of decoders that give an answer for each."""


class BackboneOptions(OptionsModel):
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


class ModelSections(OptionsModel):
    """What describes a model without its data and training."""

    backbone: BackboneOptions
    method: MethodSection
    decoder: DecoderSection
    task: TaskSection

    @model_validator(mode="after")
    def _decoder_fits(self) -> ModelSections:
        if self.decoder.level != self.task.level:
            raise ValueError(
                f"decoder.kind {self.decoder.kind} gives an answer for each {self.decoder.level}, "
                f"but task.kind {self.task.kind} asks for one for each {self.task.level}; "
                f"use decoder.kind={DECODERS_OF[self.task.level]}"
            )
        if isinstance(self.task, DetectOptions) and isinstance(self.decoder, DetectorOptions):
            oriented = self.task.boxes == "oriented"
            if self.decoder.oriented != oriented:
                kinds = "rotated_fcos or oriented_rcnn" if oriented else "faster_rcnn or fcos"
                found = "oriented" if self.decoder.oriented else "horizontal"
                raise ValueError(
                    f"decoder.kind {self.decoder.kind} finds {found} boxes, but task.boxes is "
                    f"{self.task.boxes}; use decoder.kind={kinds}, or mend task.boxes"
                )
        return self


class Recipe(ModelSections):
    """The whole recipe."""

    data: DataSection
    train: TrainOptions = TrainOptions()

    def with_precision(self, precision: str) -> Recipe:
        """The recipe with another `train.precision`."""
        train = self.train.model_copy(update={"precision": precision})
        return self.model_copy(update={"train": train})

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_known(cls, values: Any) -> Any:
        return with_named(values)

    @model_validator(mode="after")
    def _can_be_cached(self) -> Recipe:
        varied = [
            f"data.augment.{name}"
            for name, value in self.data.augment
            if name != "flips" and value != type(self.data.augment).model_fields[name].default
        ]
        if self.train.cache != "none" and varied:
            raise ValueError(
                f"{varied[0]}: makes every window another one in every epoch, but train.cache "
                f"{self.train.cache} keeps the features of the same ones, in the eight ways to lay "
                f"them; leave out {' and '.join(varied)}, or use train.cache=none"
            )
        return self

    @model_validator(mode="after")
    def _data_fits(self) -> Recipe:
        if self.data.kind == "chips" and self.task.kind == "detect":
            raise ValueError(
                "data.kind chips has masks, not objects: use data.kind=scenes, which takes folders "
                "of images too (scenes: images/*.png, labels: labels/{stem}.txt)"
            )
        if isinstance(self.data, NamedOptions):
            fits_named(self.data.name, self.task)
            return self
        kinds = ("images",) if self.task.level == "image" else DATA_OF[self.task.kind]
        if self.data.kind not in kinds:
            raise ValueError(
                f"data.kind {self.data.kind} has no labels for task.kind {self.task.kind} with an "
                f"answer for each {self.task.level}; use data.kind={' or '.join(kinds)}"
            )
        for key, tasks in ONLY_OF.items():
            field = type(self.data).model_fields.get(key)
            if field is None or self.task.kind in tasks:
                continue
            if getattr(self.data, key) != field.get_default(call_default_factory=True):
                raise ValueError(
                    f"data.{key}: is for task.kind {' or '.join(tasks)}, found {self.task.kind}"
                )
        return self
