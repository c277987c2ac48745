"""Writers of small annotation files, one per format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource, apply_affine


@dataclass(frozen=True)
class Thing:
    """An object with the corners `(n, 2)` of its outline in pixels."""

    corners: NDArray[np.float64]
    name: str = "ship"
    difficult: bool = False

    @property
    def hull(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2."""
        return (*self.corners.min(axis=0).tolist(), *self.corners.max(axis=0).tolist())


def upright(left: float, top: float, right: float, bottom: float, **options: Any) -> Thing:
    """An object with a horizontal box."""
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return Thing(np.array(corners, dtype=float), **options)


Classes = Sequence[str]


def write_coco(
    path: Path, images: dict[str, tuple[RasterSource, list[Thing]]], classes: Classes
) -> None:
    """Write one file for all images, with boxes and polygons."""
    listed, annotations = [], []
    for number, (name, (raster, things)) in enumerate(images.items(), 1):
        height, width = raster.shape
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        for thing in things:
            left, top, right, bottom = thing.hull
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(thing.name) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": [thing.corners.ravel().tolist()],
                    "iscrowd": int(thing.difficult),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    path.write_text(
        json.dumps({"images": listed, "annotations": annotations, "categories": categories})
    )


def write_dota(path: Path, raster: RasterSource, things: list[Thing], classes: Classes) -> None:
    lines = ["imagesource:GoogleEarth", "gsd:0.146343590398"]
    for thing in things:
        numbers = " ".join(repr(value) for value in thing.corners.ravel().tolist())
        lines.append(f"{numbers} {thing.name} {int(thing.difficult)}")
    path.write_text("\n".join(lines) + "\n")


def write_voc(path: Path, raster: RasterSource, things: list[Thing], classes: Classes) -> None:
    height, width = raster.shape
    text = f"<annotation><size><width>{width}</width><height>{height}</height></size>"
    for thing in things:
        left, top, right, bottom = thing.hull
        box = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        sides = "".join(f"<{side}>{value!r}</{side}>" for side, value in box.items())
        text += (
            f"<object><name>{escape(thing.name)}</name><difficult>{int(thing.difficult)}"
            f"</difficult><bndbox>{sides}</bndbox></object>"
        )
    path.write_text(text + "</annotation>")


def write_fair1m(path: Path, raster: RasterSource, things: list[Thing], classes: Classes) -> None:
    """Write outlines whose last point repeats the first, as in the data set."""
    text = f"<annotation><source><filename>{raster.path.name}</filename></source><objects>"
    for thing in things:
        outline = [*thing.corners.tolist(), thing.corners[0].tolist()]
        points = "".join(f"<point>{x!r},{y!r}</point>" for x, y in outline)
        text += (
            f"<object><possibleresult><name>{escape(thing.name)}</name></possibleresult>"
            f"<points>{points}</points></object>"
        )
    path.write_text(text + "</objects></annotation>")


def write_nwpu(path: Path, raster: RasterSource, things: list[Thing], classes: Classes) -> None:
    lines = []
    for thing in things:
        left, top, right, bottom = thing.hull
        lines.append(f"({left!r},{top!r}),({right!r},{bottom!r}),{classes.index(thing.name)}")
    path.write_text(" \n".join(lines) + "\n")


def write_yolo(path: Path, raster: RasterSource, things: list[Thing], classes: Classes) -> None:
    """Write boxes if all are horizontal, otherwise corners."""
    height, width = raster.shape
    oriented = any(len(np.unique(thing.corners[:, 0])) > 2 for thing in things)
    lines = []
    for thing in things:
        left, top, right, bottom = thing.hull
        numbers = np.array(
            [
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            ]
        )
        if oriented:
            numbers = (thing.corners / [width, height]).ravel()
        lines.append(" ".join([str(classes.index(thing.name)), *map(repr, numbers.tolist())]))
    path.write_text("\n".join(lines))


def write_points(path: Path, raster: RasterSource, things: list[Thing], classes: Classes) -> None:
    rows = ["x,y,class"]
    for thing in things:
        x, y = thing.corners.mean(axis=0).tolist()
        rows.append(f"{x!r},{y!r},{thing.name}")
    path.write_text("\n".join(rows) + "\n")


def write_vector(
    path: Path, raster: RasterSource, things: list[Thing], classes: Classes, crs: Any = None
) -> None:
    """Write polygons in the scene's CRS, or reprojected to `crs`."""
    polygons = [
        shapely.Polygon(np.stack(apply_affine(raster.transform, *thing.corners.T), axis=1))
        for thing in things
    ]
    frame = geopandas.GeoDataFrame(
        {
            "class": [thing.name for thing in things],
            "difficult": [int(thing.difficult) for thing in things],
        },
        geometry=polygons,
        crs=None if raster.crs is None else raster.crs.to_wkt(),
    )
    (frame if crs is None else frame.to_crs(crs)).to_file(path)


PER_IMAGE: dict[str, tuple[str, Callable[[Path, RasterSource, list[Thing], Classes], None]]] = {
    "dota": ("txt", write_dota),
    "fair1m": ("xml", write_fair1m),
    "nwpu": ("txt", write_nwpu),
    "voc": ("xml", write_voc),
    "yolo": ("txt", write_yolo),
    "vector": ("gpkg", write_vector),
}
"""Formats with one file per image: suffix and writer."""
