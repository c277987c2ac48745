"""Finding images with a label each: a folder a class, or a CSV that names them."""

from __future__ import annotations

import csv
import difflib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geotune.data.issues import ErrorCollector
from geotune.data.labels.image_labels import ImageLabels, Said
from geotune.data.labels.targets import ImageClass, ImageClasses, ImageValue
from geotune.data.raster.open_raster import open_raster
from geotune.data.scenes.find import RASTER_SUFFIXES
from geotune.data.scenes.open_scenes import drop_inconsistent_bands
from geotune.data.scenes.scene import Scene
from geotune.data.scenes.table import parse_split
from geotune.errors import GeotuneError

SEPARATOR = ";"
"""Between the classes of an image in the column `labels`."""

Row = dict[str, str]


def open_images(
    *,
    images: Path,
    classes: Sequence[str],
    column: str = "label",
    labels: Path | None = None,
    bands: Sequence[str] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    faults: ErrorCollector | None = None,
) -> list[Scene]:
    """Images with their labels, sorted by name; each is a scene that no window cuts.

    Args:
        images: the folder; without `labels` it has a folder for each class with its images.
        classes: names, in the order of their indices; of a number the one quantity.
        column: of the CSV, which says what a label is: `label` (a class), `labels` (any number of
            classes, such as `forest;river`) or `value` (a number).
        labels: a CSV with `path` (from `images`), `column`, and perhaps `split` with train, val or
            test.
        bands: names of a file's bands in file order, where the file does not say.
        wanted_bands: what to read, in this order; by default all.
        nodata: the value without data, where the file does not say.
        resolution: metres a pixel, as `open_raster` takes it.
        faults: may keep what is wrong with single rows and images.

    An image's name is its path from `images` without its suffix. Raises `GeotuneError` that names
    the file or row: for a class that is not in the list or that no image has, a folder without
    images, an image that is not there or that has two labels, a column that is missing and what is
    no number.
    """
    faults = faults or ErrorCollector()
    if not images.is_dir():
        raise GeotuneError(f"{images}: there is no such folder; mend data.images")
    if labels is None:
        found = _by_folder(images, classes, column)
    else:
        found = _by_table(images, labels, classes, column, faults)
    _every_class(found, classes, labels or images, column)
    opened = []
    for name, image in sorted(found.items()):
        with faults.catch(name, image.path):
            raster = open_raster(
                image.path,
                bands=bands,
                wanted_bands=wanted_bands,
                nodata=nodata,
                resolution=resolution,
            )
            said = ImageLabels(labels or image.path.parent, tuple(classes), image.target)
            opened.append(
                Scene(name, raster, said, group=name, split=image.part, attributes=image.row)
            )
    return drop_inconsistent_bands(opened, faults)


class Named(NamedTuple):
    """An image that a folder or a row names, and what is said of it."""

    path: Path
    target: Said
    part: str | None
    row: Row


Found = dict[str, Named]


def _by_folder(images: Path, classes: Sequence[str], column: str) -> Found:
    if column != "label":
        raise GeotuneError(
            f"data.labels: is missing; a folder says one class of each image, but the task asks "
            f"for {column}: give a CSV with the columns path and {column}"
        )
    folders = {path.name: path for path in sorted(images.iterdir()) if path.is_dir()}
    _known(folders, classes, f"{images}: has the folder")
    found: Found = {}
    for name, folder in folders.items():
        files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in RASTER_SUFFIXES]
        if not files:
            raise GeotuneError(
                f"{folder}: holds no image ({', '.join(RASTER_SUFFIXES)}); remove the folder, or "
                "mend data.images"
            )
        target = ImageClass(list(classes).index(name))
        for path in files:
            _add(found, images, Named(path, target, None, {}), str(path))
    return found


def _by_table(
    images: Path, table: Path, classes: Sequence[str], column: str, faults: ErrorCollector
) -> Found:
    read = READERS[column]
    found: Found = {}
    for number, row in _rows(table, column):
        where = f"{table}: row {number}"
        with faults.catch(row["path"].strip() or where, table):
            path = images / row["path"].strip()
            if not row["path"].strip() or not path.is_file():
                raise GeotuneError(
                    f"{where}: there is no image {path}; mend the row, or data.images, from which "
                    "paths start"
                )
            part = parse_split(row.get("split", ""), where)
            target = read(row[column].strip(), classes, where)
            _add(found, images, Named(path, target, part, row), where)
    return found


def _rows(table: Path, column: str) -> list[tuple[int, Row]]:
    """The rows of a CSV with their numbers, as a spreadsheet counts them."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            rows = [(reader.line_num, {k: v or "" for k, v in row.items() if k}) for row in reader]
    except FileNotFoundError as error:
        raise GeotuneError(f"{table}: there is no such file; mend data.labels") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GeotuneError(f"{table}: cannot be read as a CSV ({error}); write it anew") from error
    lacking = [name for name in ("path", column) if name not in header]
    if lacking:
        raise GeotuneError(
            f"{table}: has no column {' and '.join(lacking)}; it has "
            f"{', '.join(header) or 'none'}, expected path and {column} for this task"
        )
    if not rows:
        raise GeotuneError(f"{table}: has no row below its header; name at least two images")
    return rows


def _add(found: Found, images: Path, image: Named, where: str) -> None:
    path = image.path
    try:
        name = path.relative_to(images).with_suffix("").as_posix()
    except ValueError:  # an absolute path in the table
        name = path.with_suffix("").as_posix()
    if name in found:
        raise GeotuneError(
            f"{where}: the image {name} is named a second time ({found[name].path}); leave it in "
            "once"
        )
    found[name] = image


def _one(text: str, classes: Sequence[str], where: str) -> ImageClass:
    _known([text], classes, f"{where}: has the label")
    return ImageClass(list(classes).index(text))


def _several(text: str, classes: Sequence[str], where: str) -> ImageClasses:
    named = [part.strip() for part in text.split(SEPARATOR) if part.strip()]
    _known(named, classes, f"{where}: has the label")
    return ImageClasses(np.array([name in named for name in classes]))


def _number(text: str, classes: Sequence[str], where: str) -> ImageValue:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise GeotuneError(
            f"{where}: value is {text!r}; expected a number: mend the row or take it out"
        )
    return ImageValue(value)


READERS: dict[str, Callable[[str, Sequence[str], str], Said]] = {
    "label": _one,
    "labels": _several,
    "value": _number,
}
"""What a column of the CSV says of an image."""


def _known(names: Sequence[str] | dict[str, Path], classes: Sequence[str], where: str) -> None:
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise GeotuneError(
                f"{where} {name!r}, which is no class; task.classes has {', '.join(classes)}{hint}"
            )


def _every_class(found: Found, classes: Sequence[str], source: Path, column: str) -> None:
    """Raise `GeotuneError` where a class of the recipe has no image."""
    if column == "value":
        return
    seen = Counter(index for image in found.values() for index, _ in image.target.class_positions())
    absent = [name for index, name in enumerate(classes) if not seen[index]]
    if absent:
        raise GeotuneError(
            f"{source}: no image is of class {', '.join(absent)}; take it out of task.classes, or "
            "give images of it"
        )
