"""The content of a run: its scenes and labels, its worst windows, and predictions on demand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from geotune.api.run import load_run
from geotune.config import Recipe
from geotune.data.scenes.scene import Scene
from geotune.data.splits.spatial_blocks import scene_of_block
from geotune.errors import GeotuneError
from geotune.factory.open_data import open_data
from geotune.registry import SPLITTERS
from geotune.training.run_dir import RunDir
from geotune.view.content import FolderContent, OpenPart, Part, WorstWindow
from geotune.view.features import read_windows
from geotune.view.image_layer import image_layer
from geotune.view.label_layers import label_facts, label_layer
from geotune.view.layers import RasterLayer
from geotune.view.predict_scene import ScenePredictor

SPLITS = ("test", "val", "train")
"""Scenes are listed in this order; those of no split come last."""


def run_content(path: Path, predictions: Path) -> FolderContent:
    """The scenes of a run's recipe with their labels; the model is loaded when it first predicts.

    Args:
        path: the run folder.
        predictions: an existing folder for the maps of predictions.

    Raises `GeotuneError` if the run is not finished, or its data cannot be opened.
    """
    recipe = load_run(path).recipe
    if recipe.task.kind == "reconstruct":
        raise GeotuneError(
            f"{path}: a pretraining run predicts nothing; give a run of geotune fit, or a folder "
            "that geotune predict wrote",
            code="view-empty",
            file=path,
        )
    scenes = open_data(recipe)
    notes: list[str] = []
    splits = _splits(recipe, scenes, notes)
    rank = {split: i for i, split in enumerate(SPLITS)}

    def order(scene: Scene) -> int:
        return rank.get(splits.get(scene.name, "").partition(",")[0], len(SPLITS))

    points = getattr(recipe.task, "boxes", None) == "points"
    opened: dict[str, OpenPart] = {
        scene.name: partial(_open_scene, scene, points) for scene in sorted(scenes, key=order)
    }
    predictor = ScenePredictor(path, {scene.name: scene.raster for scene in scenes}, predictions)
    windows: list[WorstWindow] = []
    for split in ("test", "val"):
        file = RunDir(path).path / f"worst_{split}.gpkg"
        if file.exists():
            try:
                windows += _windows(file, split, set(opened))
            except GeotuneError as error:
                notes.append(str(error))
    return FolderContent(path.resolve().name, opened, splits, windows, predictor.predict, notes)


def _splits(recipe: Recipe, scenes: list[Scene], notes: list[str]) -> dict[str, str]:
    """The split of each scene, `test, train` for one that was cut into blocks."""
    options = recipe.data.split
    try:
        split = SPLITTERS[options.kind].load()(scenes, options)
    except GeotuneError as error:  # files were added or removed since the training
        notes.append(str(error))
        return {}
    files = {scene.raster.band_files[0]: scene.name for scene in scenes}
    of: dict[str, list[str]] = {}
    for name in SPLITS:
        for scene in split[name]:
            names = of.setdefault(files[scene.raster.band_files[0]], [])
            names += [name] if name not in names else []
    return {scene: ", ".join(names) for scene, names in of.items()}


def _open_scene(scene: Scene, points: bool) -> Part:
    part = Part(facts=label_facts(scene))
    layers: list[RasterLayer] = [image_layer(scene.raster)]
    try:
        labels = label_layer(scene, points=points)
    except GeotuneError as error:
        part.notes.append(str(error))
        labels = None
    if isinstance(labels, RasterLayer):
        layers.append(labels)
    elif labels is not None:
        part.features.append(labels)
    part.rasters.append((scene.raster, layers))
    return part


def _windows(path: Path, split: str, names: set[str]) -> list[WorstWindow]:
    """The worst windows of the scenes that are shown."""
    rows, shapes, crs = read_windows(path)
    windows = []
    for row, shape in zip(rows, shapes, strict=True):
        name = str(row["scene"])
        if name not in names:
            name = scene_of_block(name)
        if name in names:
            windows.append(
                WorstWindow(split, int(row["rank"]), float(row["score"]), name, shape, crs)
            )
    return windows
