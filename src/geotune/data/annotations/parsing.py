"""Helpers of the annotation readers: outlines, image sizes and XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError

SELF_INTERSECTING = "self-intersecting outlines, replaced by the box around all their corners"
"""The note about such annotations."""


def row_error(path: Path, location: str, problem: str) -> GeotuneError:
    """The error for an invalid line or item of a label file."""
    return GeotuneError(f"{path}: {location}: {problem}", code="row-invalid", file=path)


def box_corners(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """The four corners `(4, 2)` of a horizontal box."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def rotated(corners: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Corners `(4, 2)` of a box, turned clockwise in the image about its centre."""
    if degrees == 0:
        return corners
    angle, centre = np.deg2rad(degrees), corners.mean(axis=0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((corners - centre) @ turn + centre)


def self_intersects(points: NDArray[np.float64]) -> bool:
    """Whether an outline `(n, 2)` intersects itself; False for outlines without an area."""
    if len(points) < 4 or not np.isfinite(points).all():
        return False
    outline = shapely.LinearRing(points)
    return not outline.is_simple and bool(shapely.convex_hull(outline).area > 0)


def check_image_size(
    path: Path, location: str, size: tuple[float, float], raster: RasterSource
) -> None:
    """Raise `GeotuneError` if the (H, W) in a label file differs from the image's."""
    if size != raster.shape:
        raise GeotuneError(
            f"{path}: {location}: found an image size of {size[0]:g}x{size[1]:g} (H x W), but "
            f"{raster.path} has {raster.shape[0]}x{raster.shape[1]}; use the annotated image",
            code="image-size",
            file=path,
        )


def parse_xml(path: Path) -> Element:
    """Parse an XML file and return its root.

    Raises `GeotuneError` for invalid XML and for entity declarations, which could be expanded to
    exhaust the memory.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def reject_entity(*declaration: object) -> None:
        raise GeotuneError(
            f"{path}: declares the entity {declaration[0]!r}, which is not supported; remove the "
            "DOCTYPE",
            code="file-unreadable",
            file=path,
        )

    parser.EntityDeclHandler = reject_entity
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except OSError as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error.strerror}); check data.labels",
            code="file-unreadable",
            key="data.labels",
            file=path,
        ) from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter: its encoding
        raise GeotuneError(
            f"{path}: invalid or truncated XML ({error}); write it again",
            code="file-unreadable",
            file=path,
        ) from error
