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

from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import (
    SELF_INTERSECTING,
    box_corners,
    check_image_size,
    rotated,
    row_error,
    self_intersects,
)
from geotune.data.annotations.rle import decode_counts, mask_corners
from geotune.data.labels.class_mapping import as_integer
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_text
from geotune.errors import GeotuneError
from geotune.utils.text import nfc

NO_OUTLINE = "annotations without an outline, read as horizontal boxes"


@dataclass(frozen=True)
class _Index:
    """The content of a file.

    Attributes:
        images: by id.
        ids_by_stem: ids of images by the stem of `file_name`.
        annotations: by image id, each with its location for messages.
        categories: names by id.
    """

    images: Mapping[Any, Mapping[str, Any]]
    ids_by_stem: Mapping[str, list[Any]]
    annotations: Mapping[Any, list[tuple[str, Mapping[str, Any]]]]
    categories: Mapping[Any, str]


def read_coco(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image; `iscrowd` and `ignore` mean difficult.

    Oriented boxes are those around polygons and masks, or `bbox` turned by
    `attributes.rotation`. Raises `GeotuneError` for an image that is
    not listed.
    """
    index = _read_index(path, path.stat().st_mtime_ns)
    image_id = _find_image(path, index, raster)
    image = index.images[image_id]
    if image.get("width") and image.get("height"):
        location = f"image {image_id}"
        height, width = parse_numbers([image["height"], image["width"]], path, location)
        check_image_size(path, location, (height, width), raster)
    return ParsedAnnotations(
        [
            _annotation(path, location, item, index.categories, raster, options)
            for location, item in index.annotations.get(image_id, [])
        ],
        image=image_id,
    )


def list_images(path: Path) -> list[str]:
    """Stems of the images listed in a file."""
    return list(_read_index(path, path.stat().st_mtime_ns).ids_by_stem)


def _file_name(image: Mapping[str, Any]) -> PurePosixPath:
    return PurePosixPath(nfc(str(image["file_name"]).replace("\\", "/")))


def _find_image(path: Path, index: _Index, raster: RasterSource) -> Any:
    """The id of an image by its file name; of several with the same name, by its folders."""
    ids = index.ids_by_stem.get(nfc(raster.path.stem), [])
    if len(ids) > 1:
        path_parts = Path(nfc(str(raster.path.absolute().with_suffix("")))).parts
        parts = {key: _file_name(index.images[key]).with_suffix("").parts for key in ids}
        ids = [key for key in ids if path_parts[-len(parts[key]) :] == parts[key]]
    if len(ids) != 1:
        raise GeotuneError(
            f"{path}: lists {len(ids) or 'no'} images with the file_name {raster.path.name}; "
            "expected one; correct file_name or data.scenes",
            code="label-image",
            key="data.scenes",
            file=path,
        )
    return ids[0]


def _annotation(
    path: Path,
    location: str,
    item: Mapping[str, Any],
    categories: Mapping[Any, str],
    raster: RasterSource,
    options: AnnotationOptions,
) -> Annotation:
    category = _as_id(item.get("category_id"))
    if category not in categories:
        raise row_error(
            path,
            location,
            f"found category_id {item.get('category_id')!r}, expected the id of one of "
            f"{', '.join(categories.values())}",
        )
    outlines = list(_outlines(path, location, item.get("segmentation"), raster))
    box = item.get("bbox")
    if box in (None, []) and not outlines:
        raise row_error(path, location, "has neither bbox nor segmentation; expected one of them")
    no_box = box is None or (isinstance(box, list) and not any(box[2:]))
    if no_box and not outlines and (point := _keypoint(path, location, item)) is not None:
        reach = options.point_pixels(raster) / 2
        outlines = [box_corners(*(point - reach), *(point + reach))]
    if not no_box:  # tools leave empty masks beside a box
        outlines = [outline for outline in outlines if np.ptp(outline, axis=0).any()]
    note = ""
    if outlines and (options.oriented or no_box):
        points = np.concatenate(outlines)
        note = SELF_INTERSECTING if any(self_intersects(outline) for outline in outlines) else ""
    else:
        rotation = _rotation(path, location, item)
        points = rotated(_box(path, location, box), rotation or 0.0)
        note = NO_OUTLINE if options.oriented and rotation is None else ""
    difficult = any(as_integer(item.get(name)) for name in ("iscrowd", "ignore"))
    return Annotation(points, location, categories[category], difficult, note)


def _box(path: Path, location: str, box: Any) -> NDArray[np.float64]:
    if not isinstance(box, list) or len(box) != 4:
        raise row_error(path, location, f"found the bbox {box!r}, expected [x, y, width, height]")
    left, top, width, height = parse_numbers(box, path, location)
    if width < 0 or height < 0:
        raise row_error(
            path,
            location,
            f"found a bbox of width {width:g} and height {height:g}, expected at least 0",
        )
    return box_corners(left, top, left + width, top + height)


def _rotation(path: Path, location: str, item: Mapping[str, Any]) -> float | None:
    """Degrees by which tools such as CVAT turn the box clockwise; None if they are not given."""
    attributes = item.get("attributes")
    value = attributes.get("rotation") if isinstance(attributes, dict) else None
    return None if value is None else float(parse_numbers([value], path, f"{location} rotation")[0])


def _keypoint(path: Path, location: str, item: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """The point `(2)` of an object that has no other keypoint."""
    values = item.get("keypoints")
    if not isinstance(values, list) or len(values) != 3:
        return None
    return parse_numbers(values, path, f"{location} keypoints")[:2]


def _outlines(
    path: Path, location: str, segmentation: Any, raster: RasterSource
) -> Iterator[NDArray[np.float64]]:
    """Corners `(n, 2)` of each polygon, or of the mask.

    Tools leave empty polygons and some of one or two points, which outline nothing.
    """
    if isinstance(segmentation, dict) and segmentation:
        size = segmentation.get("size")
        size = size if isinstance(size, list) and len(size) == 2 else [None, None]
        height, width = parse_numbers(size, path, f"{location} size")
        check_image_size(path, location, (height, width), raster)
        counts = segmentation.get("counts")
        try:
            runs = (
                decode_counts(counts) if isinstance(counts, str) else [int(n) for n in counts or []]
            )
            yield mask_corners(runs, raster.shape)
        except (TypeError, ValueError, OverflowError) as error:
            raise row_error(
                path, location, f"invalid run-length encoded mask ({error}); write it again"
            ) from error
        return
    for polygon in segmentation or []:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise row_error(
                path,
                location,
                f"found the polygon {str(polygon)[:60]}, expected x and y of each corner",
            )
        if len(polygon) >= 6:
            yield parse_numbers(polygon, path, location).reshape(-1, 2)


@functools.lru_cache(maxsize=1)
def _read_json(path: Path, mtime_ns: int) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise GeotuneError(
            f"{path}: invalid or truncated JSON ({error}); write it again",
            code="file-unreadable",
            file=path,
        ) from error


@functools.lru_cache(maxsize=1)  # all images share one file
def _read_index(path: Path, mtime_ns: int) -> _Index:
    values = _read_json(path, mtime_ns)
    lists = {}
    for name in ("images", "annotations", "categories"):
        items = values.get(name) if isinstance(values, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise GeotuneError(
                f"{path}: has no list {name!r}; expected COCO's images, annotations and categories",
                code="file-unreadable",
                key="data.format",
                file=path,
            )
        lists[name] = items
    images: dict[Any, Mapping[str, Any]] = {}
    for i, image in enumerate(lists["images"], 1):
        key = _id(path, f"image number {i}", image, "id")
        if key in images or "file_name" not in image:
            problem = "has no file_name" if key not in images else "occurs twice"
            raise row_error(path, f"image {key}", f"{problem}; correct it")
        images[key] = image
    ids_by_stem: dict[str, list[Any]] = {}
    for key, image in images.items():
        ids_by_stem.setdefault(_file_name(image).stem, []).append(key)
    annotations: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {}
    for i, item in enumerate(lists["annotations"], 1):
        location = f"annotation {item['id']}" if "id" in item else f"annotation number {i}"
        key = _id(path, location, item, "image_id")
        if key not in images:
            raise row_error(path, location, f"found image_id {key}, which is not in its images")
        annotations.setdefault(key, []).append((location, item))
    categories = {
        _id(path, f"category number {i}", item, "id"): str(item.get("name"))
        for i, item in enumerate(lists["categories"], 1)
    }
    return _Index(images, ids_by_stem, annotations, categories)


def _id(path: Path, location: str, item: Mapping[str, Any], name: str) -> int | str:
    key = _as_id(item.get(name))
    if key is None:
        raise row_error(path, location, f"found {name} {item.get(name)!r}, expected a number")
    return key


def _as_id(value: object) -> int | str | None:
    """An id as an integer, also if it is written as `3.0` or `"3"`, else as text."""
    number = as_integer(value)
    return value if number is None and isinstance(value, str) else number


def _matches(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    values = _read_json(path, path.stat().st_mtime_ns)
    return isinstance(values, dict) and "annotations" in values


COCO = AnnotationFormat(read_coco, _matches, list_images=list_images)
