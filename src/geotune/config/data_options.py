"""Options of the data: the recipe's `data` section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from geotune.config.base import OptionsModel, Share, invalid
from geotune.config.split_options import (
    SPLIT,
    OwnSplitSection,
    PublishedSplitOptions,
    RandomSplitOptions,
    SplitSection,
)
from geotune.config.units import Nodata, PositiveLength, Resolution
from geotune.registry import ANNOTATION_FORMATS

MinVisibility = Annotated[
    float,
    Field(
        ge=0.5,
        le=1,
        description="minimum visible fraction of an object's area; in windows that show less, "
        "the object is ignored in training and evaluation",
    ),
]


def _known_format(name: str) -> str:
    if name != "auto" and name not in ANNOTATION_FORMATS:
        known = ", ".join(["auto", *ANNOTATION_FORMATS])
        raise invalid("data.format", f"found {name!r}, expected one of {known}")
    return name


class AugmentOptions(OptionsModel):
    """Augmentation of training windows; geometric changes apply to image and labels alike."""

    flips: bool = Field(default=True, description="flips and quarter turns: all eight orientations")
    rotate: float = Field(
        default=0.0,
        ge=0,
        le=180,
        description="maximum angle of rotation, in degrees, both directions",
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(1.0, 1.0), description="minimum and maximum magnification, within 0.25 to 4"
    )
    band_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="probability that a band is dropped; one band always remains",
    )
    band_brightness: Share = Field(
        default=0.0, description="as data.brightness, but drawn independently for each band"
    )

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        low, high = scale
        if not 0.25 <= low <= high <= 4:
            raise invalid(
                "data.augment.scale",
                f"found {low:g} and {high:g}, expected minimum and maximum within 0.25 to 4, such "
                "as [0.8, 1.25]",
            )
        return scale

    @property
    def resamples(self) -> bool:
        """Whether windows are rotated or scaled, so that pixels are interpolated."""
        return self.rotate > 0 or self.scale != (1.0, 1.0)

    @property
    def infinite(self) -> bool:
        """Whether a window has more variants than its eight orientations."""
        return self.resamples or self.band_dropout > 0 or self.band_brightness > 0


def _augment_section(value: object) -> object:
    if isinstance(value, bool):
        return {"flips": value}
    if not isinstance(value, dict | AugmentOptions):
        raise invalid(
            "data.augment", f"found {value!r}, expected true, false or keys such as flips, rotate"
        )
    return value


class QualityOptions(OptionsModel):
    """Cloud or quality masks, one file per scene."""

    pattern: str = Field(description="mask file, with `{stem}` for the scene's name")
    values: list[int] = Field(
        default_factory=list,
        description="mask values that flag a pixel, such as 3, 8, 9 and 10 of Sentinel-2's SCL",
    )
    bits: list[Annotated[int, Field(ge=0, le=31)]] = Field(
        default_factory=list,
        description="bits, counted from 0, any of which flags a pixel, such as 3 (cloud) and "
        "4 (shadow) of Landsat's QA_PIXEL",
    )
    band: PositiveInt = Field(default=1, description="band of the mask file, from 1")
    mask_image: bool = Field(
        default=False,
        description="also set flagged pixels of the image to nodata, not only the labels",
    )

    @model_validator(mode="after")
    def _has_flags(self) -> QualityOptions:
        if not self.values and not self.bits:
            raise invalid(
                "data.quality",
                "found neither values nor bits; say which of them flag a pixel, such as values: "
                "[3, 8, 9, 10] of Sentinel-2's scene classification",
            )
        return self


class DataOptions(OptionsModel):
    """Options that every kind of data has."""

    samples: PositiveInt | None = Field(
        default=None,
        description="training windows per epoch; by default what covers all training scenes",
    )
    replacement: bool = Field(
        default=True,
        description="draw training windows independently; false: each training image once per "
        "epoch, in random order, if the window covers it",
    )
    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="fraction of the training scenes or images to use, drawn by train.seed; larger "
        "fractions contain the smaller ones",
    )
    rare_class_fraction: Share = Field(
        default=0.5,
        description="fraction of training windows centred on a pixel of a rare class, or an object",
    )
    augment: Annotated[AugmentOptions, BeforeValidator(_augment_section)] = Field(
        default_factory=AugmentOptions,
        description="augmentation of training windows; true: flips and quarter turns, false: none",
    )
    brightness: Share = Field(
        default=0.2, description="standard deviation of random gain and offset in training; 0: none"
    )
    normalize: Literal["auto", "backbone", "data"] | dict[str, tuple[float, PositiveFloat]] = Field(
        default="auto",
        description="statistics of the backbone's pretraining, or of the training data; auto: the "
        "backbone's, unless the data are in other units; or a mean and a standard deviation for "
        "each band, such as {B02: [0.14, 0.07]}, in the units of the files",
    )
    nodata_fill: float | None = Field(
        default=None,
        description="value of missing pixels before normalisation; by default the mean",
    )

    @model_validator(mode="after")
    def _each_image_once(self) -> DataOptions:
        for key, neutral in (("samples", None), ("rare_class_fraction", 0)):
            if not self.replacement and getattr(self, key) != neutral:
                raise invalid(
                    f"data.{key}",
                    f"found {getattr(self, key)}, but data.replacement false draws each image once "
                    f"per epoch; use data.{key}={'null' if neutral is None else neutral}",
                )
        return self


class OwnDataOptions(DataOptions):
    """What files of one's own may not state."""

    bands: list[str] | dict[str, list[str]] | None = Field(
        default=None,
        description="band names in file order, if the files do not name them; by modality if "
        "data.scenes is",
    )
    nodata: Nodata | None = Field(
        default=None, description="nodata value, such as 0 or .nan, if the files do not declare it"
    )
    resolution: Resolution | None = Field(
        default=None,
        description="metres per pixel, such as 10 m, to which images and labels are resampled; "
        "also combines files of one scene with different resolutions",
    )
    quality: QualityOptions | None = Field(
        default=None, description="cloud or quality masks; flagged pixels are ignored in training"
    )


class LabelledDataOptions(OwnDataOptions):
    """Data with labels inside the image."""

    window: PositiveInt = Field(default=128, description="side of the windows, in pixels")
    class_values: dict[str, int | str | list[int | str]] | None = Field(
        default=None,
        description="value or values of each class in the labels: numbers, colours as 0xRRGGBB, or "
        "text in vector files; by default the class's index",
    )
    class_field: str | None = Field(
        default=None,
        description="attribute of vector labels with the class; empty: every polygon has the "
        "second class, every object the only class",
    )
    ignore_values: list[int] | None = Field(
        default=None,
        description="values of raster labels that are ignored; by default 255, and none in colour "
        "masks, where that is blue",
    )
    unlabelled: Literal["background", "ignore"] | None = Field(
        default=None,
        description="pixels outside vector labels: the first class, or ignored; by default the "
        "first class if it is called background",
    )
    label_band: PositiveInt = Field(
        default=1, description="band of label rasters for regression, from 1"
    )
    sigma: PositiveLength = Field(
        default="3 px",
        description="standard deviation of the Gaussian of an object in density maps, in pixels or "
        "metres",
    )
    points: Literal["pixels", "coordinates"] = Field(
        default="pixels",
        description="meaning of x and y in a CSV of objects; coordinates: in the scene's CRS",
    )


class ScenesOptions(LabelledDataOptions):
    """Scenes with raster or vector labels, cut into windows."""

    kind: Literal["scenes"] = "scenes"
    scenes: str | list[str] | dict[str, str] = Field(
        description="files or patterns; `{band}` if each band has a file, `{date}` if each date "
        "has, `{scene}` for the scene's name in the path, or fields of any name such as `{tile}`; "
        "by modality for several; or a table of scenes: CSV, GeoParquet, STAC"
    )
    labels: str | None = Field(
        default=None,
        description="pattern of the label files, with `{stem}` for the scene's name, or the fields "
        "of scenes; not needed if a table of scenes lists them",
    )
    format: Annotated[str, AfterValidator(_known_format)] = Field(
        default="auto",
        description="format of object labels; auto: detected from their contents; "
        f"{', '.join(ANNOTATION_FORMATS)}",
    )
    missing_labels: Literal["refuse", "empty"] = Field(
        default="refuse",
        description="scenes without object labels: an error, or scenes without objects",
    )
    min_visibility: MinVisibility = 0.5
    point_size: PositiveLength | None = Field(
        default=None, description="side of the boxes around objects labelled as points: 6 m, 10 px"
    )
    other_classes: Literal["refuse", "leave_out"] = Field(
        default="refuse", description="objects of classes that are not in task.classes"
    )
    split: SplitSection


class ChipsOptions(LabelledDataOptions):
    """A folder of images and a folder of masks, matched by stem."""

    kind: Literal["chips"] = "chips"
    images: Path = Field(description="folder of the images")
    masks: Path = Field(description="folder of the masks: rasters of class indices or colours")
    image_suffix: str = Field(
        default="", description="end of the image's stem that the mask's lacks"
    )
    mask_suffix: str = Field(
        default="", description="end of the mask's stem that the image's lacks"
    )
    split: SplitSection


class SyntheticOptions(LabelledDataOptions):
    """Generated scenes with water, forest, fields, towns, clouds and shadows."""

    kind: Literal["synthetic"] = "synthetic"
    folder: Path = Field(default=Path("synthetic"), description="folder to write the scenes to")
    count: PositiveInt = Field(default=4, description="number of scenes")
    size: int = Field(default=512, ge=64, description="side of a scene, in pixels")
    seed: int = Field(default=0, ge=0, description="of the random number generator")
    split: SplitSection = Field(default_factory=lambda: RandomSplitOptions(val=0.25, test=0.25))


class ImagesOptions(OwnDataOptions):
    """Images with one label each: a folder per class, or a CSV."""

    kind: Literal["images"] = "images"
    images: Path = Field(description="folder with one folder per class, or base of the CSV's paths")
    labels: Path | None = Field(
        default=None,
        description="CSV with columns path, label or labels (a;b) or value, and optionally split",
    )
    window: PositiveInt | None = Field(
        default=None,
        description="side to which images are padded; by default that of the largest image",
    )
    split: SplitSection


class NamedOptions(DataOptions):
    """A published data set; bands, classes and files are known. See `geotune list datasets`."""

    kind: Literal["named"] = "named"
    name: str = Field(description="of the data set; see geotune list datasets")
    root: Path = Field(description="folder with the unpacked files; nothing is downloaded")
    window: PositiveInt | None = Field(
        default=None, description="side of the windows; by default the data set's own"
    )
    ignore_values: list[int] = Field(
        default_factory=list, description="further mask values that are ignored"
    )
    min_visibility: MinVisibility = 0.5
    split: Annotated[
        PublishedSplitOptions | OwnSplitSection, Field(discriminator="kind", description=SPLIT)
    ] = PublishedSplitOptions()


DataSection = Annotated[
    ScenesOptions | ChipsOptions | SyntheticOptions | ImagesOptions | NamedOptions,
    Field(discriminator="kind"),
]
