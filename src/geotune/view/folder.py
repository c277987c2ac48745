"""The content of a folder that `geotune predict` wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from geotune.data.raster.open_raster import Files, open_raster
from geotune.errors import GeotuneError
from geotune.report import number_format as fmt
from geotune.utils.paths import is_system_file
from geotune.utils.text import nfc
from geotune.view.content import FolderContent, OpenPart, Part
from geotune.view.features import feature_file_layer, features_grid
from geotune.view.image_layer import image_layer
from geotune.view.layers import RasterLayer
from geotune.view.prediction_layers import open_map
from geotune.view.styles import Row

MAPS = ("_classes", "_probabilities", "_uncertainty", "_novelty")
SHAPES = ("_objects", "_polygons")
RASTERS = (".tif", ".tiff", ".vrt")
TABLE = "images.csv"
"""Written for tasks that predict whole images."""

MAX_DESCRIPTION_BYTES = 64 * 2**20
"""Larger project files and items are not read."""


def folder_content(folder: Path, images: Mapping[str, Files]) -> FolderContent:
    """The scenes of a folder by name, from the names of its files; none is opened yet.

    Args:
        folder: written by `geotune predict`.
        images: files of scenes by name; by default those that projects and items state.

    Raises `GeotuneError` if the folder has nothing to show.
    """
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and not is_system_file(Path(path.name))
    )
    known = [path.stem for path in files if path.suffix == ".qgs"]
    known += [path.stem.removesuffix("_item") for path in files if path.name.endswith("_item.json")]
    by_scene: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in RASTERS or (
            path.suffix == ".gpkg" and path.stem.endswith(SHAPES)
        ):
            by_scene.setdefault(nfc(_scene_name(path, known)), []).append(path)
    table = _read_table(folder / TABLE)
    for name in table:
        by_scene.setdefault(name, [])
    if not by_scene:
        raise GeotuneError(
            f"{folder}: has no maps; expected a folder that geotune predict wrote, with files such "
            "as SCENE_classes.tif or SCENE_objects.gpkg, or a run folder",
            code="view-empty",
            file=folder,
        )
    scenes: dict[str, OpenPart] = {
        name: partial(_open_scene, folder, name, paths, images.get(name), table.get(name, {}))
        for name, paths in sorted(by_scene.items())
    }
    return FolderContent(folder.resolve().name, scenes)


def maps_of(paths: Iterable[Path], name: str) -> Part:
    """The maps of a scene, without its image; files that cannot be read become notes."""
    part = Part()
    for path in paths:
        try:
            if path.suffix.lower() in RASTERS:
                file = open_map(path)
                layers = file.layers if file.suffix else _beside_image(file.layers, path.stem, name)
                part.rasters.append((file.source, layers))
            elif path.suffix == ".gpkg":
                kind = path.stem.removeprefix(f"{name}_")
                part.features.append(feature_file_layer(path, kind, "prediction"))
                part.grid = part.grid or features_grid(path)
            elif path.name == TABLE:
                part.facts += _facts(_read_table(path).get(name, {}))
        except GeotuneError as error:
            part.notes.append(str(error))
    return part


def _beside_image(layers: list[RasterLayer], stem: str, name: str) -> list[RasterLayer]:
    """Layers of an unknown raster: the image if it is named as the scene, else hidden at first."""
    if stem == name:
        return layers
    kind = stem.removeprefix(f"{name}_")
    return [replace(layer, title=kind, role="confidence", visible=False) for layer in layers]


def _open_scene(
    folder: Path, name: str, paths: list[Path], image: Files | None, row: Mapping[str, str]
) -> Part:
    part = maps_of(paths, name)
    has_image = any(layer.role == "image" for _, layers in part.rasters for layer in layers)
    stated = row.get("path") or _stated_image(folder, name)
    if image is None and not has_image and stated:
        if _is_image(folder / stated):
            image = folder / stated
        else:
            part.notes.append(
                f"{folder / stated}: the image of the scene is not there; name it by --scenes"
            )
    if image is not None:
        try:
            source = open_raster(image)
            part.rasters.insert(0, (source, [image_layer(source)]))
        except GeotuneError as error:
            part.notes.append(str(error))
    part.facts += _facts(row)
    if not part.rasters and part.grid is None:
        reason = part.notes[0] if part.notes else f"{folder}: has no image or map of scene {name}"
        raise GeotuneError(reason, code="view-empty", file=folder)
    return part


def _scene_name(path: Path, known: Iterable[str]) -> str:
    """The scene of a map: the longest known name that its own starts with."""
    for suffix in MAPS + SHAPES:
        if path.stem.endswith(suffix):
            return path.stem.removesuffix(suffix)
    starts = [name for name in known if path.stem == name or path.stem.startswith(f"{name}_")]
    return max(starts, key=len, default=path.stem)


def _stated_image(folder: Path, name: str) -> str | None:
    """The image of a scene by its project or its STAC item, relative to the folder."""
    return _described(folder / f"{name}.qgs", _image_of_project) or _described(
        folder / f"{name}_item.json", _image_of_item
    )


def _is_image(path: Path) -> bool:
    """Whether a path is a file or a folder, and no pipe or device, which may never end."""
    try:
        return path.is_file() or path.is_dir()
    except OSError:  # such as a name that is too long
        return False


def _described(path: Path, read: Callable[[Path], str | None]) -> str | None:
    """What a file states of the image; None if it is missing, huge or damaged."""
    try:
        return read(path) if path.stat().st_size <= MAX_DESCRIPTION_BYTES else None
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, Xml.ParseError
    ):  # fmt: skip
        return None


def _image_of_project(path: Path) -> str | None:
    """The raster at the bottom, which is the image: the maps lie in the project's folder."""
    sources = [
        (layer.findtext("datasource") or "").removeprefix("./")
        for layer in Xml.parse(path).getroot().iter("maplayer")
        if layer.get("type") == "raster"
    ]
    return sources[-1] if sources else None


def _image_of_item(path: Path) -> str | None:
    links: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["links"]
    scenes = [
        link["href"] for link in links if link.get("rel") == "derived_from" and not link.get("type")
    ]
    return None if not scenes or "://" in scenes[0] else str(scenes[0])


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of images by the image's name; empty if there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {nfc(row["image"]): row for row in csv.DictReader(file) if row.get("image")}
    except (OSError, ValueError, csv.Error):
        return {}


def _facts(row: Mapping[str, str]) -> list[Row]:
    """The predicted columns of a table."""
    return [
        (f"predicted {key}", _number(text))
        for key, text in row.items()
        if key and key not in ("image", "path") and isinstance(text, str)
    ]


def _number(text: str) -> str:
    try:
        return fmt.number(float(text))
    except ValueError:
        return text
