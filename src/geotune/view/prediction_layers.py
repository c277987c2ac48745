"""Maps that `geotune predict` wrote, as layers; recognised by what the files state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster.io import open_dataset
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference.geotiff import PROBABILITY_SCALE
from geotune.report import number_format as fmt
from geotune.utils.colors import is_background
from geotune.utils.text import word
from geotune.view.image_layer import image_layer, sample_values, value_limits
from geotune.view.layers import RasterLayer, ReadFn, Role, raster_reader
from geotune.view.styles import ClassStyle, Legend, Rgba, Row, Values, ValueStyle


@dataclass(frozen=True)
class MapFile:
    """A map in a folder.

    Attributes:
        source: opens it.
        suffix: what its name has after that of the scene, such as `_classes`; empty for images.
        layers: what it shows, from bottom to top.
    """

    source: RasterSource
    suffix: str
    layers: list[RasterLayer]


def open_map(path: Path) -> MapFile:
    """Open a map, or an image. Raises `GeotuneError` if it cannot be read as a raster."""
    source = open_raster(path)
    with_tags = open_dataset(path)
    tags, of_band = with_tags.tags(), with_tags.tags(1)
    if classes := _class_names(of_band):
        layers = [RasterLayer("classes", "prediction", raster_reader(source), ClassStyle(classes))]
        return MapFile(source, "_classes", layers)
    if "probability" in tags:
        return MapFile(source, "_probabilities", _probability_layers(source))
    if "uncertainty" in tags:
        layers = [_share_layer(source, name, 1 / PROBABILITY_SCALE) for name in source.bands]
        return MapFile(source, "_uncertainty", layers)
    if {"percentile", "distance"} <= tags.keys():
        layers = _novelty_layers(source, with_tags.scales)
        return MapFile(source, "_novelty", layers)
    name = source.bands[0]
    if len(source.bands) == 1 and with_tags.dtypes[0].startswith("float") and source.named:
        unit = (with_tags.units[0] or "") if with_tags.units else ""
        deviation = name == "standard deviation"
        style = ValueStyle(name, *value_limits(sample_values(source)), unit)
        role: Role = "confidence" if deviation else "prediction"
        layers = [RasterLayer(name, role, raster_reader(source), style, visible=not deviation)]
        return MapFile(source, "_uncertainty" if deviation else f"_{word(name)}", layers)
    return MapFile(source, "", [image_layer(source)])


def _class_names(tags: dict[str, str]) -> tuple[str, ...]:
    """The names in the tags `class_0`, `class_1`, ... that geotune writes; empty without."""
    names: list[str] = []
    while (name := tags.get(f"class_{len(names)}")) is not None:
        names.append(name)
    return tuple(names)


@dataclass(frozen=True)
class _ProbabilityStyle:
    """The largest probability as a colour; all of them in words, most likely first."""

    shown: ValueStyle
    classes: tuple[str, ...]

    @property
    def legend(self) -> Legend:
        return self.shown.legend

    def colors(self, values: Values) -> Rgba:
        return self.shown.colors(values.max(axis=0, keepdims=True))

    def describe(self, values: NDArray[np.floating[Any]]) -> list[Row]:
        if not np.isfinite(values).all():
            return []
        order = np.argsort(-values, kind="stable")
        return [(self.classes[i], fmt.percent(float(values[i]))) for i in order]


def _probability_layers(source: RasterSource) -> list[RasterLayer]:
    """The confidence, which is the largest probability, and the probability of each class."""
    read = _scaled(raster_reader(source), 1 / PROBABILITY_SCALE)
    lowest = 1 / max(len(source.bands), 2)
    style = _ProbabilityStyle(ValueStyle("confidence", lowest, 1.0, share=True), source.bands)
    layers = [
        replace(
            _share_layer(source, name, 1 / PROBABILITY_SCALE),
            title=f"probability of {name}",
            answers=False,
        )
        for name in source.bands
        if not is_background(name)
    ]
    return [RasterLayer("confidence", "confidence", read, style, visible=False), *layers]


def _novelty_layers(source: RasterSource, scales: Sequence[float]) -> list[RasterLayer]:
    """The distance of windows from the training, and the share of validation windows below it."""
    percentile = _share_layer(source, source.bands[0], scales[0])
    distance = _share_layer(source, source.bands[1], scales[1])
    style = ValueStyle("distance", 0.0, scales[1] * PROBABILITY_SCALE)
    return [
        replace(distance, title="novelty: distance", style=style),
        replace(percentile, title="novelty: percentile"),
    ]


def _share_layer(source: RasterSource, name: str, scale: float) -> RasterLayer:
    """A band of shares from 0 to 1."""
    read = _scaled(raster_reader(source.select([name])), scale)
    style = ValueStyle(name, 0.0, 1.0, share=True)
    return RasterLayer(name, "confidence", read, style, visible=False)


def _scaled(read: ReadFn, scale: float) -> ReadFn:
    def scaled(window: Window, step: int) -> Values:
        return read(window, step) * np.float32(scale)

    return scaled
