"""Sections of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from geotune.config.base import OptionsModel, Share
from geotune.config.split_options import OwnSplit, PublishedSplit, RandomSplit, Split
from geotune.config.units import Resolution, Width

Visible = Annotated[
    float,
    Field(
        ge=0.5,
        le=1,
        description="least share of an object's area by which it counts in a window; in windows "
        "that show less it is neither to be found nor wrong to find",
    ),
]


class Augment(OptionsModel):
    """How training windows vary: what is in them keeps its place in image and labels alike."""

    flips: bool = Field(True, description="flips and quarter turns: each of the eight ways")
    rotate: float = Field(
        0.0, ge=0, le=180, description="turned by up to so many degrees, either way"
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        (1.0, 1.0), description="least and greatest factor by which things appear larger"
    )
    band_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability that a band is left out; one always stays"
    )
    band_brightness: Share = Field(
        0.0, description="as data.brightness, but drawn for each band by itself"
    )

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        least, most = scale
        if not 0.25 <= least <= most <= 4:
            raise ValueError(
                f"data.augment.scale: found {least:g} and {most:g}, expected the least and the "
                "greatest factor, from 0.25 to 4, such as [0.8, 1.25]"
            )
        return scale


def _section(value: object) -> object:
    if isinstance(value, bool):
        return {"flips": value}
    if not isinstance(value, dict | Augment):
        raise ValueError(
            f"data.augment: found {value!r}, expected true, false or keys such as flips and rotate"
        )
    return value


class Quality(OptionsModel):
    """Masks of clouds or of quality, a file for each scene."""

    pattern: str = Field(description="the mask's file, with `{stem}` for the scene's name")
    values: list[int] = Field(default_factory=list, description="values that flag a pixel")
    bits: list[Annotated[int, Field(ge=0, le=31)]] = Field(
        default_factory=list, description="bits that flag a pixel where one is set, from 0"
    )
    band: PositiveInt = Field(1, description="of the mask's file")
    mask_image: bool = Field(
        False, description="flagged pixels have no data in the image either, beside no label"
    )

    @model_validator(mode="after")
    def _flags(self) -> Quality:
        if not self.values and not self.bits:
            raise ValueError(
                "data.quality: has neither values nor bits; say which flag a pixel, such as "
                "values: [3, 8, 9, 10] of Sentinel-2's scene classification"
            )
        return self


class _Windows(OptionsModel):
    """What every kind of data has."""

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
    rare_class_fraction: Share = Field(
        0.5,
        description="share of training windows drawn around a pixel of a rare class, or an object",
    )
    augment: Annotated[Augment, BeforeValidator(_section)] = Field(
        default_factory=Augment,
        description="how training windows vary; true or false: flips and quarter turns, or nothing",
    )
    brightness: Share = Field(
        0.2, description="how much the light of training windows varies: gain and offset; 0: none"
    )
    normalize: Literal["auto", "backbone", "data"] = "auto"


class _OwnFiles(_Windows):
    """What files of one's own do not always say."""

    bands: list[str] | dict[str, list[str]] | None = Field(
        None,
        description="names of the files' bands in file order, where the files do not say; by "
        "modality where data.scenes is",
    )
    nodata: float | None = Field(None, description="where the files do not say")
    resolution: Resolution | None = Field(
        None,
        description="metres a pixel, such as 10 m, to which images are brought, labels with them; "
        "also unites files of one scene that have different ones",
    )
    quality: Quality | None = Field(
        None, description="masks of clouds or of quality: what they flag is not learnt from"
    )


class _Labelled(_OwnFiles):
    """What data with labels inside the image has."""

    window: PositiveInt = 128
    class_values: dict[str, int | str | list[int | str]] | None = Field(
        None,
        description="class name to its value in the labels, or several: numbers, colours as "
        "0xRRGGBB, or text in vector files; by default the class's index",
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
    sigma: Width = Field(
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
    scenes: str | list[str] | dict[str, str] = Field(
        description="files or patterns; `{band}` where each band has a file, `{date}` where each "
        "date has, `{scene}` where the scene's name stands in the path; by modality for several; "
        "or a list of scenes: CSV, GeoParquet, STAC"
    )
    labels: str | None = Field(
        None,
        description="pattern of the label file, with `{stem}` for the scene's name; a list of "
        "scenes may say it",
    )
    format: Literal["auto", "coco", "dota", "fair1m", "nwpu", "points", "vector", "voc", "yolo"] = (
        Field("auto", description="of labels of objects; by default what their contents say")
    )
    missing_labels: Literal["refuse", "empty"] = Field(
        "refuse", description="scenes without a file of objects: refused, or without any object"
    )
    min_visibility: Visible = 0.5
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


class Images(_OwnFiles):
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


class Named(_Windows):
    """A data set that others publish, by its name; `geotune list datasets` shows them.

    Its bands, classes, values and files are known (`geotune.datasets`).
    """

    kind: Literal["named"] = "named"
    name: str
    root: Path = Field(description="folder in which its files were unpacked; nothing is fetched")
    window: PositiveInt | None = Field(None, description="by default the data set's own")
    ignore_values: list[int] = Field(
        default_factory=list, description="of masks: further values that are not counted"
    )
    min_visibility: Visible = 0.5
    split: Annotated[PublishedSplit | OwnSplit, Field(discriminator="kind")] = PublishedSplit()


Data = Annotated[Scenes | Chips | Synthetic | Images | Named, Field(discriminator="kind")]
