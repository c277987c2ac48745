"""What a user says of objects and of the files with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class AnnotationOptions:
    """How objects are read.

    Attributes:
        oriented: boxes are the smallest around the objects at any angle; else horizontal.
        visible: the least share of its area by which an object counts in a window.
        class_field: attribute of vector labels with the class; `""`: none.
        point_size: side of the box around a point, `6 m` or `10 px`.
        other_classes: whether objects of other classes are a fault (`refuse`) or `leave_out`.
    """

    oriented: bool = False
    min_visibility: float = 0.5
    class_field: str | None = None
    point_size: str | None = None
    other_classes: Literal["refuse", "leave_out"] = "refuse"

    def point_pixels(self, raster: RasterSource) -> float:
        """Side of the box around a point in pixels of an image.

        Raises `GeotuneError` where none is said, or metres of an image that says no pixel size.
        """
        if self.point_size is None:
            raise GeotuneError(
                f"{raster.path}: its labels are points; say with data.point_size how large the "
                "boxes around them are, such as 6 m or 10 px"
            )
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(m|px)", self.point_size)
        if found is None or not float(found[1]):
            raise GeotuneError(
                f"data.point_size: found {self.point_size!r}, expected metres or pixels such as "
                "6 m or 10 px"
            )
        size = float(found[1])
        if found[2] == "px":
            return size
        if raster.gsd_m is None:
            raise GeotuneError(
                f"{raster.path}: does not say how large a pixel is, so that data.point_size "
                f"{self.point_size} is unknown there; give it in pixels, such as 10 px"
            )
        return size / raster.gsd_m
