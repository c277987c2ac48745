"""COCO: one JSON for all images, with boxes, polygons and run-length encoded masks.

{"images": [{"id": 1, "file_name": "a.png", "width": 800, "height": 600}],
 "categories": [{"id": 3, "name": "ship"}],
 "annotations": [{"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40],
                  "segmentation": [[10, 20, 40, 20, 40, 60]], "iscrowd": 0}]}
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import SELF_INTERSECTING, box_corners, self_intersects
from geotune.data.annotations.rle import decode_counts, mask_corners
from geotune.data.annotations.size import check_image_size
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_text
from geotune.errors import GeotuneError

NO_OUTLINE = "annotations without an outline, whose oriented box is their horizontal one"


@dataclass(frozen=True)
class _Index:
    """What a file holds.

    Attributes:
        images: by id.
        named: ids of the images by the stem of their files.
        annotations: with their places, by the image's id.
        categories: names by id.
    """

    images: Mapping[Any, Mapping[str, Any]]
    named: Mapping[str, list[Any]]
    annotations: Mapping[Any, list[tuple[str, Mapping[str, Any]]]]
    categories: Mapping[Any, str]


def read_coco(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one of the file's images; `iscrowd` and `ignore` mean difficult.

    Oriented boxes are those around polygons and masks. Raises `GeotuneError` for an image that
    the file does not list.
    """
    index = _read(path, path.stat().st_mtime_ns)
    key = _image_of(path, index, raster)
    image = index.images[key]
    if image.get("width") and image.get("height"):
        height, width = parse_numbers([image["height"], image["width"]], path, f"image {key}")
        check_image_size(path, f"image {key}", (height, width), raster)
    return ParsedAnnotations(
        [
            _annotation(path, place, item, index.categories, raster, options)
            for place, item in index.annotations.get(key, [])
        ]
    )


def image_names(path: Path) -> list[str]:
    """Stems of the images that a file lists."""
    return list(_read(path, path.stat().st_mtime_ns).named)


def _file_of(image: Mapping[str, Any]) -> PurePosixPath:
    return PurePosixPath(str(image["file_name"]).replace("\\", "/"))


def _image_of(path: Path, index: _Index, raster: RasterSource) -> Any:
    """The id of an image by its file's name; of several of one name that in the same folder."""
    same = index.named.get(raster.path.stem, [])
    if len(same) > 1:
        here = raster.path.absolute().with_suffix("").parts
        files = {key: _file_of(index.images[key]).with_suffix("").parts for key in same}
        same = [key for key in same if here[-len(files[key]) :] == files[key]]
    if len(same) != 1:
        found = "lists no image" if not same else f"lists {len(same)} images"
        raise GeotuneError(
            f"{path}: {found} called {raster.path.name}; mend file_name there, or data.scenes"
        )
    return same[0]


def _annotation(
    path: Path,
    place: str,
    item: Mapping[str, Any],
    categories: Mapping[Any, str],
    raster: RasterSource,
    options: AnnotationOptions,
) -> Annotation:
    category = item.get("category_id")
    if not isinstance(category, (int, str)) or category not in categories:
        raise GeotuneError(
            f"{path}: {place}: has the category {category!r}, expected the id of one of "
            f"{', '.join(categories.values())}"
        )
    outlines = list(_outlines(path, place, item.get("segmentation"), raster))
    box = item.get("bbox")
    if box is None and not outlines:
        raise GeotuneError(f"{path}: {place}: has neither bbox nor segmentation; expected one")
    remark = ""
    if outlines and (options.oriented or box is None):
        points = np.concatenate(outlines)
        remark = SELF_INTERSECTING if any(self_intersects(outline) for outline in outlines) else ""
    else:
        points = _box(path, place, box)
        remark = NO_OUTLINE if options.oriented else ""
    difficult = bool(item.get("iscrowd") or item.get("ignore"))
    return Annotation(points, place, categories[category], difficult, remark)


def _box(path: Path, place: str, box: Any) -> NDArray[np.float64]:
    if not isinstance(box, list) or len(box) != 4:
        raise GeotuneError(f"{path}: {place}: has the bbox {box!r}, expected [x, y, width, height]")
    left, top, width, height = parse_numbers(box, path, place)
    if width < 0 or height < 0:
        raise GeotuneError(
            f"{path}: {place}: has a bbox of width {width:g} and height {height:g}, expected none "
            "below 0"
        )
    return box_corners(left, top, left + width, top + height)


def _outlines(
    path: Path, place: str, segmentation: Any, raster: RasterSource
) -> Iterator[NDArray[np.float64]]:
    """Corners `(n, 2)` of each polygon, or of the mask."""
    if isinstance(segmentation, dict):
        height, width = parse_numbers(_list(segmentation.get("size"), 2), path, f"{place} size")
        check_image_size(path, place, (height, width), raster)
        counts = segmentation.get("counts")
        try:
            runs = (
                decode_counts(counts) if isinstance(counts, str) else [int(n) for n in counts or []]
            )
            yield mask_corners(runs, raster.shape)
        except (TypeError, ValueError, OverflowError) as error:
            raise GeotuneError(
                f"{path}: {place}: is no run-length encoded mask ({error}); write it anew"
            ) from error
        return
    for polygon in segmentation or []:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise GeotuneError(
                f"{path}: {place}: has the polygon {str(polygon)[:60]}, expected x, y of three "
                "corners or more"
            )
        yield parse_numbers(polygon, path, place).reshape(-1, 2)


def _list(value: Any, length: int) -> list[Any]:
    return value if isinstance(value, list) and len(value) == length else [None] * length


def read_json(path: Path) -> Any:
    """A JSON file's contents. Raises `GeotuneError` for one that is cut off or no JSON."""
    return _read_json(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_json(path: Path, changed: int) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise GeotuneError(f"{path}: is no whole JSON file ({error}); write it anew") from error


@functools.lru_cache(maxsize=1)  # all images share one file
def _read(path: Path, changed: int) -> _Index:
    values = read_json(path)
    parts = {}
    for part in ("images", "annotations", "categories"):
        items = values.get(part) if isinstance(values, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise GeotuneError(
                f"{path}: has no list {part!r}, expected COCO's images, annotations and categories"
            )
        parts[part] = items
    images: dict[Any, Mapping[str, Any]] = {}
    for i, image in enumerate(parts["images"], 1):
        key = _key(path, f"image number {i}", image, "id")
        if key in images or "file_name" not in image:
            fault = "has no file_name" if key not in images else "is there twice"
            raise GeotuneError(f"{path}: image {key} {fault}; mend it")
        images[key] = image
    named: dict[str, list[Any]] = {}
    for key, image in images.items():
        named.setdefault(_file_of(image).stem, []).append(key)
    annotations: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {}
    for i, item in enumerate(parts["annotations"], 1):
        place = f"annotation {item['id']}" if "id" in item else f"annotation number {i}"
        key = _key(path, place, item, "image_id")
        if key not in images:
            raise GeotuneError(f"{path}: {place}: is of image {key}, which is not in its images")
        annotations.setdefault(key, []).append((place, item))
    categories = {
        _key(path, f"category number {i}", item, "id"): str(item.get("name"))
        for i, item in enumerate(parts["categories"], 1)
    }
    return _Index(images, named, annotations, categories)


def _key(path: Path, place: str, item: Mapping[str, Any], name: str) -> int | str:
    key = item.get(name)
    if not isinstance(key, (int, str)):
        raise GeotuneError(f"{path}: {place}: has the {name} {key!r}, expected a number")
    return key


def _matches(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    values = read_json(path)
    return isinstance(values, dict) and "annotations" in values


COCO = AnnotationFormat(read_coco, _matches, list_images=image_names)
