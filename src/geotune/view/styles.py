"""How pixel values become colours, and what they mean in words."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from geotune.report import number_format as fmt
from geotune.report.images import VALUE_KEY
from geotune.report.rgb import Stretch
from geotune.types import IGNORE
from geotune.utils.colors import Color, css, is_background, palette

Values = NDArray[np.floating[Any]]
"""`(C, h, w)`, NaN without data."""

Rgba = NDArray[np.uint8]
"""`(h, w, 4)`."""

Legend = Mapping[str, Any]
"""`classes`: name and colour of each; or `gradient` (CSS) with `low` and `high`; or nothing."""

Row = tuple[str, str]
"""A name and a value of a pixel, for people."""


class Style(Protocol):
    """Colours and words for the values of a layer."""

    @property
    def legend(self) -> Legend: ...  # noqa: D102

    def colors(self, values: Values) -> Rgba:
        """The values as colours; without data transparent."""

    def describe(self, values: NDArray[np.floating[Any]]) -> list[Row]:
        """The values `(C,)` of one pixel in words; empty without data."""


@dataclass(frozen=True)
class ImageStyle:
    """Red, green and blue of an image.

    Attributes:
        stretch: of the shown bands.
        bands: names of all bands.
        shown: indices of the shown bands in the values that are read.
        names: of the values that are read.
    """

    stretch: Stretch
    shown: tuple[int, int, int]
    names: tuple[str, ...]

    @property
    def legend(self) -> Legend:
        """None is needed."""
        return {}

    def colors(self, values: Values) -> Rgba:
        """The stretched image; a pixel without data in a shown band is transparent."""
        picked = values[list(self.shown)]
        valid = np.isfinite(picked).all(axis=0)
        rgba = np.zeros((*valid.shape, 4), dtype=np.uint8)
        rgba[valid, :3] = self.stretch.apply(picked[:, valid]).T
        rgba[valid, 3] = 255
        return rgba

    def describe(self, values: NDArray[np.floating[Any]]) -> list[Row]:
        """The value of each band."""
        return [(name, fmt.number(float(v))) for name, v in zip(self.names, values, strict=True)]


@dataclass(frozen=True)
class ClassStyle:
    """A colour per class; the background is transparent, so that the image below it shows."""

    classes: tuple[str, ...]

    @functools.cached_property
    def palette(self) -> tuple[Color, ...]:
        """The colour of each class, as in all of geotune."""
        return palette(self.classes)

    @property
    def legend(self) -> Legend:
        """Names and colours."""
        return {
            "classes": [
                entry | {"color": None if is_background(entry["name"]) else entry["color"]}
                for entry in class_legend(self.classes)
            ]
        }

    def colors(self, values: Values) -> Rgba:
        """The colours of the classes."""
        indices = np.where(np.isfinite(values[0]), values[0], IGNORE).astype(np.int64)
        table = np.zeros((IGNORE + 1, 4), dtype=np.uint8)
        for index, (name, color) in enumerate(zip(self.classes, self.palette, strict=True)):
            table[index] = (0, 0, 0, 0) if is_background(name) else (*color, 255)
        colors: Rgba = table[indices.clip(0, IGNORE)]
        return colors

    def describe(self, values: NDArray[np.floating[Any]]) -> list[Row]:
        """The name of the class."""
        value = float(values[0])
        if not np.isfinite(value) or int(value) >= len(self.classes):
            return []
        return [("class", self.classes[int(value)])]


@dataclass(frozen=True)
class ValueStyle:
    """Numbers of one band from dark to bright.

    Attributes:
        name: of the number.
        low: dark.
        high: bright.
        unit: of the number.
        share: whether it lies between 0 and 1, and is shown in percent.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    share: bool = False

    @property
    def legend(self) -> Legend:
        """The gradient, and the numbers at its ends."""
        return {
            "gradient": VALUE_KEY[0][0],
            "low": self._text(self.low),
            "high": self._text(self.high),
        }

    def colors(self, values: Values) -> Rgba:
        """The colours of the numbers."""
        valid = np.isfinite(values[0])
        scaled = (np.where(valid, values[0], self.low) - self.low) / ((self.high - self.low) or 1)
        rgba: Rgba = (255 * colormaps["viridis"](scaled.clip(0, 1))).round().astype(np.uint8)
        rgba[~valid] = 0
        return rgba

    def describe(self, values: NDArray[np.floating[Any]]) -> list[Row]:
        """The number."""
        value = float(values[0])
        return [(self.name, self._text(value))] if np.isfinite(value) else []

    def _text(self, value: float) -> str:
        text = fmt.percent(value) if self.share else fmt.number(value)
        return f"{text} {self.unit}".rstrip()


def class_legend(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Name and colour of each class."""
    colors = zip(classes, palette(classes), strict=True)
    return [{"name": name, "color": css(color)} for name, color in colors]
