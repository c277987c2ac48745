"""`adapter.json`: the model that an adapter's tensors belong to. Reading it needs no torch.

An adapter copied without its run predicts the same: whatever a prediction depends on is in here.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, model_validator

from geotune.config.base import OptionsModel, Share
from geotune.config.data_options import QualityOptions
from geotune.config.units import Nodata
from geotune.errors import GeotuneError
from geotune.types import Normalization

FORMAT = 2
TENSORS = "adapter.safetensors"
ADAPTER_CONFIG = "adapter.json"
MAX_WINDOW = 2**20
"""Largest side of a window in pixels."""
NOVELTY = "novelty.safetensors"
"""Statistics of training features beside an adapter, if there are some."""


class TrainingImages(OptionsModel):
    """What the images of a training were like; those of a prediction are compared with it.

    Attributes:
        mean: of the raw values of each band, in the order of the normalisation.
        std: their standard deviation.
        dtypes: data types of the files.
        pixel_m: smallest and largest side of a pixel in metres; None if unknown.
        scalings: scale and offset that the files state for their bands; empty if unknown.
    """

    mean: list[float]
    std: list[float]
    dtypes: list[str]
    pixel_m: tuple[PositiveFloat, PositiveFloat] | None = None
    scalings: list[tuple[float, float]] = Field(default_factory=list)


class ClassThreshold(OptionsModel):
    """From which probability on the pixels of a map get a rare class, the best in validation.

    Attributes:
        name: of the class.
        threshold: the probability.
        iou: of the class in validation at the threshold.
        iou_most_likely: of the class in validation if every pixel gets its most likely class.
    """

    name: str
    threshold: Share
    iou: Share
    iou_most_likely: Share | None = None


class PredictionSettings(OptionsModel):
    """What a prediction depends on besides the model.

    Attributes:
        window: side of the training windows in pixels.
        resolution_m: metres per pixel to which images are resampled; None keeps their own.
        bands: names of the bands in file order, if the files do not name them.
        nodata: nodata value, if the files do not declare it.
        quality: which values of a quality mask flag a pixel; each prediction names its masks.
        score_thresholds: of each class of a detector, the best in validation, if known.
        class_thresholds: of the classes of a map that are not the most common one, rarest first.
        images: of the training; None compares nothing.
        novelty: hash of the statistics of training features; None without them.
    """

    window: int = Field(ge=1, le=MAX_WINDOW)
    resolution_m: PositiveFloat | None = None
    bands: list[str] | dict[str, list[str]] | None = None
    nodata: Nodata | None = None
    quality: QualityOptions | None = None
    score_thresholds: dict[str, float | None] = Field(default_factory=dict)
    class_thresholds: list[ClassThreshold] = Field(default_factory=list)
    images: TrainingImages | None = None
    novelty: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_written_by_0_2_0(cls, values: Any) -> Any:
        """That version stored the rarest class only."""
        if not isinstance(values, Mapping) or "class_threshold" not in values:
            return values
        others = dict(values)
        rarest = others.pop("class_threshold")
        return others | {"class_thresholds": [] if rarest is None else [rarest]}


@dataclass(frozen=True)
class AdapterConfig:
    """The model that an adapter belongs to.

    Attributes:
        base: name, fingerprint, source and licence of the frozen weights.
        normalization: of the bands, in their order.
        sections: the recipe's `backbone`, `method`, `decoder` and `task`, as plain values.
        prediction: what a prediction depends on besides the model.
        geotune: the version that wrote it.
        hash: of the tensors' file.
    """

    base: dict[str, str]
    normalization: Normalization
    sections: dict[str, Any]
    prediction: PredictionSettings
    geotune: str
    hash: str

    @property
    def metadata(self) -> tuple[str, ...]:
        """Further inputs of the model, such as `time`."""
        named = self.sections["backbone"].get("metadata")
        return tuple(map(str, named)) if isinstance(named, list) else ()


def unfinished_advice(folder: Path) -> str:
    """What to do with a run whose training is not complete; empty if the folder is no such run."""
    checkpoints = folder / "checkpoint"
    if not (folder / "recipe.yaml").is_file() or not checkpoints.is_dir():
        return ""
    run = shlex.quote(str(folder))
    return (
        f"the training of {folder} is not complete; wait for it, or, if it was interrupted, resume "
        f"it with geotune fit {run}, or keep its best epoch with geotune finish {run}"
    )


def load_adapter_config(folder: Path) -> AdapterConfig:
    """Read `adapter.json`. Raises `GeotuneError` if it is missing, invalid or newer."""
    path = folder / ADAPTER_CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GeotuneError(
            f"{path}: file not found; "
            + (
                unfinished_advice(folder)
                or "expected the folder of a finished run or of an adapter"
            ),
            code="adapter-missing",
            file=path,
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise GeotuneError(
            f"{path}: invalid or truncated JSON ({error}); copy the adapter again",
            code="adapter-invalid",
            file=path,
        ) from error
    try:
        json.dumps(values, ensure_ascii=False).encode()  # raises for text that no file can hold
        if values["format"] != FORMAT:
            raise GeotuneError(
                f"{path}: found format {values['format']!r}, expected {FORMAT}; use the geotune "
                "version that wrote it, or train again with this one",
                code="adapter-version",
                file=path,
            )
        base = {key: values["base"][key] for key in ("name", "fingerprint", "source", "licence")}
        sections = {key: values[key] for key in ("backbone", "method", "decoder", "task")}
        version, digest = values["geotune"], values["hash"]
        if not all(isinstance(text, str) for text in (*base.values(), version, digest)):
            raise ValueError("base, geotune and hash are not all strings")
        if not all(isinstance(section, dict) for section in sections.values()):
            raise ValueError("backbone, method, decoder and task are not all mappings")
        prediction = PredictionSettings.model_validate(values["prediction"])
        normalization = _read_normalization(values)
        return AdapterConfig(base, normalization, sections, prediction, version, digest)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise GeotuneError(
            f"{path}: not a geotune adapter ({type(error).__name__}: {error}); copy it again",
            code="adapter-invalid",
            file=path,
        ) from error


def _read_normalization(config: Mapping[str, Any]) -> Normalization:
    """Read and check the normalisation. Raises `ValueError`."""
    bands = config["bands"]
    values = config["normalization"]
    offset, scale, fill = values["offset"], values["scale"], values.get("fill")
    if not isinstance(bands, list) or not all(isinstance(band, str) for band in bands):
        raise ValueError("bands is not a list of names")
    for numbers in (offset, scale, [0.0] * len(bands) if fill is None else fill):
        if not isinstance(numbers, list) or not all(
            type(number) in (int, float) and math.isfinite(number) for number in numbers
        ):
            raise ValueError("offset, scale and fill are not lists of finite numbers")
        if len(numbers) != len(bands):
            raise ValueError("bands, offset, scale and fill differ in length")
    if 0 in scale:
        raise ValueError("a scale is zero")
    return Normalization(
        tuple(bands),
        tuple(map(float, offset)),
        tuple(map(float, scale)),
        None if fill is None else tuple(map(float, fill)),
    )
