"""Sections of the data and its splits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationInfo, model_validator

from geotune.recipe.section import Section, Share


class ListSplit(Section):
    """Scenes or chips of each part by name."""

    kind: Literal["list"] = "list"
    train: list[str] | Path
    val: list[str] | Path
    test: list[str] | Path = Field(default_factory=list)


class RandomSplit(Section):
    """Whole scenes or chips drawn at random into the parts."""

    kind: Literal["random"] = "random"
    val: Share = 0.2
    test: Share = 0.2
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> RandomSplit:
        if self.val + self.test >= 1:
            raise ValueError(
                f"data.split: val {self.val} and test {self.test} leave nothing to train on"
            )
        return self


class GroupSplit(Section):
    """Groups held out by name; what is not named trains."""

    kind: Literal["group"] = "group"
    by: str = Field(
        "scene", description="`scene`, or a regular expression whose first group is the name"
    )
    val: list[str]
    test: list[str] = Field(default_factory=list)


class ColumnSplit(Section):
    """Each image in the part that the labels' column `split` names: train, val or test."""

    kind: Literal["column"] = "column"


Split = Annotated[ListSplit | RandomSplit | GroupSplit | ColumnSplit, Field(discriminator="kind")]


def _width(text: str, info: ValidationInfo) -> str:
    if not re.fullmatch(r"\d+(\.\d+)? ?(px|m)", text) or not float(text.rstrip(" pxm")):
        name = f"data.{info.field_name}"
        raise ValueError(f"{name}: found {text!r}, expected a width such as 3 px or 2 m")
    return text


Width = Annotated[str, AfterValidator(_width)]
"""In pixels or metres, as people write it."""


class _Windows(Section):
    """What every kind of data has."""

    bands: list[str] | None = Field(
        None, description="names of the files' bands in file order, where the files do not say"
    )
    nodata: float | None = Field(None, description="where the files do not say")
    samples: PositiveInt | None = Field(
        None,
        description="training windows an epoch; by default what covers the training scenes once",
    )
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the training scenes or images that is used, drawn by train.seed; "
        "what a smaller share draws is in every larger one",
    )
    focus: Share = Field(
        0.5,
        description="share of training windows drawn around a pixel of a rare class, or an object",
    )
    augment: bool = Field(True, description="flips and quarter turns of training windows")
    brightness: Share = Field(
        0.2, description="how much the light of training windows varies: gain and offset; 0: none"
    )
    normalize: Literal["auto", "backbone", "data"] = "auto"


class _Labelled(_Windows):
    """What data with labels inside the image has."""

    window: PositiveInt = 128
    class_values: dict[str, int] | None = Field(
        None, description="class name to its number in the labels; by default the class's index"
    )
    class_field: str | None = Field(
        None,
        description="attribute of vector labels that holds the class; empty: every polygon is of "
        "the second class, every object of the one class",
    )
    ignore_values: list[int] = Field(
        default_factory=lambda: [255], description="values of raster labels that are not counted"
    )
    unlabelled: Literal["background", "ignore"] | None = Field(
        None,
        description="pixels outside vector labels: the first class, or not counted; by default the "
        "first class where it is called background",
    )
    label_band: PositiveInt = Field(1, description="of rasters with values to regress: which band")
    spread: Width = Field(
        "3 px",
        description="standard deviation of an object's place in a density map, in pixels or metres",
    )
    points: Literal["pixels", "coordinates"] = Field(
        "pixels",
        description="what x and y of a CSV of objects are; coordinates: in the scene's CRS",
    )


class Scenes(_Labelled):
    """Whole scenes with raster or vector labels, cut into windows."""

    kind: Literal["scenes"] = "scenes"
    scenes: str | list[str] = Field(
        description="files or patterns; `{band}` where each band has a file, `{scene}` where the "
        "scene's name stands in the path"
    )
    labels: str = Field(description="pattern of the label file, with `{stem}` for the scene's name")
    format: Literal["auto", "coco", "dota", "points", "vector", "voc", "yolo"] = Field(
        "auto", description="of labels of objects; by default what their names and contents say"
    )
    missing: Literal["refuse", "empty"] = Field(
        "refuse", description="scenes without a file of objects: refused, or without any object"
    )
    visible: float = Field(
        0.5,
        ge=0.5,
        le=1,
        description="least share of an object's area by which it counts in a window; in windows "
        "that show less it is neither to be found nor wrong to find",
    )
    point_size: Width | None = Field(
        None,
        description="side of the boxes around objects that are labelled as points: 6 m, 10 px",
    )
    other_classes: Literal["refuse", "leave_out"] = Field(
        "refuse", description="objects of classes that task.classes does not name"
    )
    split: Split


class Chips(_Labelled):
    """A folder of images and a folder of masks, matched by stem."""

    kind: Literal["chips"] = "chips"
    images: Path
    masks: Path
    image_suffix: str = Field("", description="what the image's stem has and the mask's lacks")
    mask_suffix: str = Field("", description="what the mask's stem has and the image's lacks")
    split: Split


class Synthetic(_Labelled):
    """Scenes that geotune makes itself, with water, woods, fields, towns, clouds and shadows."""

    kind: Literal["synthetic"] = "synthetic"
    folder: Path = Path("synthetic")
    count: PositiveInt = 4
    size: int = Field(512, ge=64)
    seed: int = Field(0, ge=0)
    split: Split = Field(default_factory=lambda: RandomSplit(val=0.25, test=0.25))


class Images(_Windows):
    """Images with a label each: a folder a class, or a CSV."""

    kind: Literal["images"] = "images"
    images: Path = Field(
        description="folder with a folder for each class, or where CSV paths start"
    )
    labels: Path | None = Field(
        None, description="CSV with path, one of label, labels (a;b) and value, and perhaps split"
    )
    window: PositiveInt | None = Field(
        None, description="side that every image is padded to; by default the largest image's"
    )
    split: Split


Data = Annotated[Scenes | Chips | Synthetic | Images, Field(discriminator="kind")]
