"""What a map depends on: options of its tiles, of the files made of them, and of the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from geotune.api.predict_options import LoadOptions, PredictOptions
from geotune.api.predicted_scenes import SceneOptions
from geotune.errors import GeotuneError

SMALLEST_TILE = 64
"""Tiles are a multiple of this: a fraction of the blocks of a GeoTIFF, or a multiple of them."""

OF_FILES = ("polygons", "min_area", "simplify", "right_angles", "score", "formats")
"""The options of a prediction that matter only when files are made of finished tiles."""


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What is mapped.

    Attributes:
        predict: what is predicted, and how.
        scenes: how the files of scenes are read.
        tile: side of a tile in pixels.
        threads: CPU threads of each worker; sums in another order round differently.
        device: `auto`, `cpu`, `gpu` or `mps`.
        qgis: also write QGIS styles and projects.
        zarr: also write the maps as Zarr.

    Raises `GeotuneError` for values out of range.
    """

    predict: PredictOptions = field(default_factory=PredictOptions)
    scenes: SceneOptions = field(default_factory=SceneOptions)
    tile: int = 2048
    threads: int = 1
    device: str = "auto"
    qgis: bool = True
    zarr: bool = False

    def __post_init__(self) -> None:
        if self.tile < SMALLEST_TILE or self.tile % SMALLEST_TILE:
            raise GeotuneError(
                f"--tile: found {self.tile}, expected a multiple of {SMALLEST_TILE} pixels, such "
                "as 2048",
                code="option-invalid",
                key="--tile",
            )
        if self.threads < 1:
            raise GeotuneError(
                f"--threads: found {self.threads}, expected at least 1",
                code="option-invalid",
                key="--threads",
            )

    @property
    def of_tiles(self) -> dict[str, Any]:
        """What the pixels of tiles depend on, as plain values."""
        predict = {k: v for k, v in _plain(self.predict).items() if k not in OF_FILES}
        others = {"tile": self.tile, "threads": self.threads, "device": self.device}
        return {**predict, **_plain(self.scenes), **others}

    @property
    def of_files(self) -> dict[str, Any]:
        """What the files made of tiles depend on, as plain values."""
        predict = {k: v for k, v in _plain(self.predict).items() if k in OF_FILES}
        return {**predict, "qgis": self.qgis, "zarr": self.zarr}

    def as_values(self) -> dict[str, Any]:
        """All options, for a worker in another process."""
        return {**self.of_tiles, **self.of_files}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> MapOptions:
        """The options of `as_values`."""
        own = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(
            predict=PredictOptions(**_select(PredictOptions, values)),
            scenes=SceneOptions(**_select(SceneOptions, values)),
            **{k: v for k, v in own.items() if k not in ("predict", "scenes")},
        )


def plain_files(files: LoadOptions) -> dict[str, Any]:
    """Where the models are, as plain values."""
    return {**asdict(files), "ensemble": [str(each) for each in files.ensemble]} | {
        "weights": None if files.weights is None else str(files.weights)
    }


def _select(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: values[each.name] for each in fields(kind)}


def _plain(options: Any) -> dict[str, Any]:
    """Options as JSON has them, so that those of a file compare equal."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(options).items()
    }
