"""Open images with one label each (`data.kind: images`): a folder per class, or a CSV of labels.

For classification and regression of whole images. `chips.py` opens images with masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geotune.data.issues import ErrorCollector, Issue
from geotune.data.labels.class_mapping import as_integer
from geotune.data.labels.image_labels import ImageLabels, ImageTarget
from geotune.data.labels.targets import ImageClass, ImageClasses, ImageValue
from geotune.data.raster.open_raster import open_raster
from geotune.data.scenes.chips import rasters_in
from geotune.data.scenes.entry import parse_split
from geotune.data.scenes.find import RASTER_SUFFIXES
from geotune.data.scenes.open_scenes import drop_inconsistent_bands
from geotune.data.scenes.scene import Scene
from geotune.data.text_io import read_csv
from geotune.errors import GeotuneError, check_exists
from geotune.utils.paths import existing_path, files_below, is_system_file
from geotune.utils.text import did_you_mean, join_some, nfc, pluralize

SEPARATOR = ";"
"""Separator of the classes of an image in the column `labels`."""

Row = dict[str, str]


class LabelledImage(NamedTuple):
    """An image with its label, and its split and row if a CSV lists it."""

    path: Path
    target: ImageTarget
    split: str | None
    row: Row


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
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Open images with their labels, sorted by name; each is a scene that windows do not cut.

    Args:
        images: the folder; without `labels` it has one folder of images per class.
        classes: names, in the order of their indices; for `value` the name of the quantity.
        column: the CSV column with labels: `label` (one class), `labels` (any number of classes,
            such as `forest;river`) or `value` (a number).
        labels: a CSV with the columns `path` (relative to `images`), `column`, and optionally
            `split` (train, val or test).
        bands: as for `open_raster`, like `wanted_bands`, `nodata` and `resolution`.
        errors: may collect errors about single rows and images.

    An image's name is its path in `images` without suffix. Raises `GeotuneError` for an unknown or
    empty class, an image that is missing or listed twice, a missing column, and an invalid number.
    """
    errors = errors or ErrorCollector()
    check_exists(images, "folder", "data.images", folder=True)
    if labels is None:
        listed = _by_folder(images, classes, column)
    else:
        listed = _by_table(images, labels, classes, column, errors)
    _check_every_class(listed, classes, labels or images, column)
    opened = []
    for name, image in sorted(listed.items()):
        with errors.catch(name, image.path):
            raster = open_raster(
                image.path,
                bands=bands,
                wanted_bands=wanted_bands,
                nodata=nodata,
                resolution=resolution,
            )
            label = ImageLabels(labels or image.path.parent, tuple(classes), image.target)
            opened.append(
                Scene(name, raster, label, group=name, split=image.split, attributes=image.row)
            )
    return drop_inconsistent_bands(opened, errors)


def unread_images(images: Path, labels: Path | None) -> list[Issue]:
    """A warning if images lie beside the folders of the classes, which are not read."""
    images = existing_path(images)
    unread = [] if labels else rasters_in(images.iterdir(), images)
    if not unread:
        return []
    text = (
        f"{images}: {pluralize(len(unread), 'image')} beside the folders of the classes, not used: "
        f"{join_some([*map(str, unread)])}; put them into the folder of their class"
    )
    return [Issue("warning", "files", text, unread[0], key="data.images")]


def _by_folder(images: Path, classes: Sequence[str], column: str) -> dict[str, LabelledImage]:
    if column != "label":
        raise GeotuneError(
            f"data.labels: is missing; folders state one class per image, but the task needs "
            f"{column}: give a CSV with the columns path and {column}",
            code="labels-missing",
            key="data.labels",
        )
    folders = {
        nfc(path.name): path
        for path in sorted(images.iterdir())
        if path.is_dir() and not is_system_file(path.relative_to(images))
    }
    listed: dict[str, LabelledImage] = {}
    found = {name: rasters_in(files_below(folder), folder) for name, folder in folders.items()}
    for name, files in found.items():
        folder = folders[name]
        if not files:
            raise GeotuneError(
                f"{folder}: contains no image ({', '.join(RASTER_SUFFIXES)}); remove the folder, "
                "or check data.images",
                code="scenes-missing",
                key="data.images",
                file=folder,
            )
    _check_classes(folders, classes, f"{images}: the folder")
    for name, files in found.items():
        target = ImageClass([*map(_key, classes)].index(_key(name)))
        for path in files:
            _add(listed, images, LabelledImage(path, target, None, {}), str(path))
    return listed


def _by_table(
    images: Path, table: Path, classes: Sequence[str], column: str, errors: ErrorCollector
) -> dict[str, LabelledImage]:
    parse = PARSERS[column]
    listed: dict[str, LabelledImage] = {}
    for line, row in table_rows(table, column):
        where = f"{table}: {line}"
        with errors.catch(row["path"].strip() or where, table):
            path = existing_path(images / row["path"].strip())
            if not row["path"].strip() or not path.is_file():
                raise GeotuneError(
                    f"{where}: image {path} not found; correct the row, or data.images, to which "
                    "paths are relative",
                    code="file-missing",
                    key="data.images",
                    file=path,
                )
            split = parse_split(row.get("split", ""), where)
            target = parse(row[column].strip(), classes, where)
            _add(listed, images, LabelledImage(path, target, split, row), where)
    return listed


def table_rows(table: Path, column: str | None = None) -> Iterator[tuple[str, Row]]:
    """Yield `line 3` and the row for each row of a CSV; it must have `path` and the column."""
    rows = read_csv(table)
    _, header = next(rows, ("", []))
    columns = [name.strip() for name in header]
    needed = ["path"] if column is None else ["path", column]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise GeotuneError(
            f"{table}: has no column {' and '.join(missing)}; it has "
            f"{', '.join(columns) or 'none'}, expected {' and '.join(needed)} for this task",
            code="column-missing",
            file=table,
        )
    line = None
    for line, cells in rows:
        row = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        yield line, {name: cell for name, cell in row.items() if name}
    if line is None:
        raise GeotuneError(
            f"{table}: has no row below its header; list at least two images",
            code="scenes-missing",
            key="data.labels",
            file=table,
        )


def _add(listed: dict[str, LabelledImage], images: Path, image: LabelledImage, where: str) -> None:
    path = image.path
    try:
        name = nfc(path.relative_to(images).with_suffix("").as_posix())
    except ValueError:  # an absolute path in the table
        name = nfc(path.with_suffix("").as_posix())
    if name in listed:
        raise GeotuneError(
            f"{where}: image {name} is already listed ({listed[name].path}); remove one",
            code="scene-duplicate",
            file=path,
        )
    listed[name] = image


def _parse_class(text: str, classes: Sequence[str], where: str) -> ImageClass:
    _check_classes([text], classes, f"{where}: the label")
    return ImageClass([*map(_key, classes)].index(_key(text)))


def _parse_classes(text: str, classes: Sequence[str], where: str) -> ImageClasses:
    names = [name.strip() for name in text.split(SEPARATOR) if name.strip()]
    _check_classes(names, classes, f"{where}: the label")
    present = {*map(_key, names)}
    return ImageClasses(np.array([_key(name) in present for name in classes]))


def _parse_value(text: str, classes: Sequence[str], where: str) -> ImageValue:
    del classes
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise GeotuneError(
            f"{where}: value is {text!r}; expected a number: correct or remove the row",
            code="label-value",
        )
    return ImageValue(value)


PARSERS: dict[str, Callable[[str, Sequence[str], str], ImageTarget]] = {
    "label": _parse_class,
    "labels": _parse_classes,
    "value": _parse_value,
}
"""How the cells of each label column are parsed."""


def _key(name: str) -> int | str:
    """What equal names have in common: a number, however it is written, or composed Unicode."""
    number = as_integer(name)
    return nfc(name) if number is None else number


def _check_classes(
    names: Sequence[str] | dict[str, Path], classes: Sequence[str], where: str
) -> None:
    known = [*map(_key, classes)]
    for name in names:
        if _key(name) not in known:
            hint = did_you_mean(name, classes)
            raise GeotuneError(
                f"{where} {name!r} is not a class; task.classes has {', '.join(classes)}{hint}",
                code="class-unknown",
                key="task.classes",
            )


def _check_every_class(
    listed: dict[str, LabelledImage], classes: Sequence[str], source: Path, column: str
) -> None:
    """Raise `GeotuneError` if no image has a class of the recipe."""
    if column == "value":
        return
    present = {i for image in listed.values() for i, _ in image.target.class_positions()}
    empty = [name for index, name in enumerate(classes) if index not in present]
    if empty:
        raise GeotuneError(
            f"{source}: no image of class {', '.join(empty)}; remove it from task.classes, or add "
            "images of it",
            code="class-empty",
            key="task.classes",
            file=source,
        )
