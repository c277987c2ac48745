"""Open images without labels, to continue a backbone's pretraining.

Label files are not read; they are only recognised where they lie among the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.data.issues import ErrorCollector
from geotune.data.labels.pixel_data import NoLabels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.chips import files_by_stem, rasters_in
from geotune.data.scenes.entry import SceneEntry, parse_split
from geotune.data.scenes.find import RASTER_SUFFIXES, Names, Patterns
from geotune.data.scenes.labelled_images import table_rows
from geotune.data.scenes.open_scenes import (
    drop_inconsistent_bands,
    label_file,
    list_scenes,
    open_entries,
    with_attributes,
    without_label_files,
)
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError, check_exists
from geotune.utils.paths import existing_path, files_below
from geotune.utils.text import nfc


def unlabelled_scene(
    name: str, raster: RasterSource, group: str | None = None, split: str | None = None
) -> Scene:
    """A scene whose pixels have no labels."""
    return Scene(name, raster, NoLabels(raster.path), group=group or name, split=split)


def open_unlabelled_scenes(
    *,
    scenes: Patterns,
    labels: str | None = None,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Open the scenes of patterns or tables.

    `labels` is the pattern of label files, which are no scenes, if there are any; the other options
    are those of `open_scenes`. Raises `GeotuneError` for patterns without a match and unreadable
    files; `errors` may collect those about single files.
    """
    errors = errors or ErrorCollector()
    entries = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands, errors=errors)
    entries = without_label_files(entries, _known_label_files(entries, labels))
    rasters = open_entries(entries, errors, bands, wanted_bands, nodata, resolution)
    opened = [with_attributes(unlabelled_scene(n, r), entries[n]) for n, r in rasters.items()]
    return drop_inconsistent_bands(opened, errors)


def _known_label_files(entries: Mapping[str, SceneEntry], labels: str | None) -> dict[str, Path]:
    files = {}
    for name, entry in entries.items():
        if entry.label is not None:
            files[name] = entry.label
        elif labels is not None:
            files[name] = label_file(labels, name, entry.fields)
    return files


def open_unlabelled_chips(
    *,
    images: Path,
    masks: Path,
    image_suffix: str = "",
    mask_suffix: str = "",
    errors: ErrorCollector | None = None,
    **options: Any,
) -> list[Scene]:
    """Open the images of a folder of chips; the options are those of `open_chips`.

    `masks` need not exist.
    """
    images = existing_path(images)
    same = masks.exists() and images.resolve() == existing_path(masks).resolve()
    files = files_by_stem("data.images", images, image_suffix, mask_suffix if same else "")
    return _open_files({name: (path, None) for name, path in files.items()}, errors, **options)


def open_unlabelled_images(
    *,
    images: Path,
    labels: Path | None = None,
    errors: ErrorCollector | None = None,
    **options: Any,
) -> list[Scene]:
    """Open all images below a folder, or those that a CSV lists with the column `path`.

    A column `split` is read; the options are those of `open_images`.
    """
    errors = errors or ErrorCollector()
    check_exists(images, "folder", "data.images", folder=True)
    images = existing_path(images)
    listed: dict[str, tuple[Path, str | None]] = {}
    if labels is None:
        listed = {_name(p, images): (p, None) for p in rasters_in(files_below(images), images)}
    else:
        for line, row in table_rows(labels):
            where = f"{labels}: {line}"
            path = existing_path(images / row["path"].strip())
            with errors.catch(row["path"].strip() or where, labels):
                check_exists(path, f"image of {where}", "data.images")
                listed[_name(path, images)] = path, parse_split(row.get("split", ""), where)
    if not listed and not errors.issues:
        raise GeotuneError(
            f"{images}: contains no image ({', '.join(RASTER_SUFFIXES)}); check data.images",
            code="scenes-missing",
            key="data.images",
            file=images,
        )
    return _open_files(dict(sorted(listed.items())), errors, **options)


def _name(path: Path, images: Path) -> str:
    """The path of an image in its folder, without suffix."""
    inside = path.relative_to(images) if path.is_relative_to(images) else path
    return nfc(inside.with_suffix("").as_posix())


def _open_files(
    files: Mapping[str, tuple[Path, str | None]], errors: ErrorCollector | None, **options: Any
) -> list[Scene]:
    """Open images by name, each with its split; `options` are those of `open_raster`."""
    errors = errors or ErrorCollector()
    opened = []
    for name, (path, split) in files.items():
        with errors.catch(name, path):
            opened.append(unlabelled_scene(name, open_raster(path, **options), split=split))
    return drop_inconsistent_bands(opened, errors)
