"""What a map shows: scenes, each opened when it is first looked at, and windows to fly to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.view.layers import FeatureLayer, RasterLayer, SceneLayers
from geotune.view.map_grid import MapGrid
from geotune.view.styles import ClassStyle, Row

_ORDER = ("image", "labels", "confidence", "prediction")
"""Roles from bottom to top."""


@dataclass
class Part:
    """What one folder knows of a scene.

    Attributes:
        rasters: each with its layers, the image first.
        features: shapes.
        grid: of shapes without a raster.
        facts: see `SceneLayers`.
        notes: see `SceneLayers`.
    """

    rasters: list[tuple[RasterSource, list[RasterLayer]]] = field(default_factory=list)
    features: list[FeatureLayer] = field(default_factory=list)
    grid: MapGrid | None = None
    facts: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


OpenPart = Callable[[], Part]
"""Opens the files of a scene. Raises `GeotuneError` if none can be read."""


class WorstWindow(NamedTuple):
    """A window with a bad score.

    Attributes:
        split: that it belongs to.
        rank: 1 is the worst.
        score: of the window.
        scene: name of its scene.
        shape: outline in the coordinates of the file.
        crs: of the outline; None if unknown.
    """

    split: str
    rank: int
    score: float
    scene: str
    shape: Any
    crs: Any


@dataclass
class FolderContent:
    """What a folder of predictions or a run shows.

    Attributes:
        title: of the folder.
        scenes: by name, in the order of the list.
        splits: of the scenes, if known.
        windows: the worst ones, worst first.
        predict: predicts a scene by name and returns its maps; None if it cannot.
        notes: messages for the user.
    """

    title: str
    scenes: dict[str, OpenPart]
    splits: dict[str, str] = field(default_factory=dict)
    windows: list[WorstWindow] = field(default_factory=list)
    predict: Callable[[str, Callable[[int, int], None]], Part] | None = None
    notes: list[str] = field(default_factory=list)


class MapContent:
    """The content of one or several folders, with their scenes joined by name.

    Args:
        folders: with at least one scene.
    """

    def __init__(self, folders: Sequence[FolderContent]) -> None:
        self.folders = folders
        self.title = ", ".join(folder.title for folder in folders)
        self.notes = [note for folder in folders for note in folder.notes]
        self.names = list(dict.fromkeys(name for folder in folders for name in folder.scenes))
        self.splits = {name: split for folder in folders for name, split in folder.splits.items()}
        self.windows = [window for folder in folders for window in folder.windows]
        self._versions = itertools.count(1)
        self._opened: dict[str, SceneLayers] = {}
        self._predicted: dict[str, list[tuple[FolderContent, Part]]] = {}
        self._locks = {name: threading.Lock() for name in self.names}

    def scene(self, name: str) -> SceneLayers:
        """The layers of a scene. Raises `GeotuneError` if none of its files can be read."""
        with self._locks[name]:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def predictors(self, name: str) -> list[FolderContent]:
        """The folders that can predict a scene and have not done so yet."""
        done = {id(folder) for folder, _ in self._predicted.get(name, [])}
        return [
            folder
            for folder in self.folders
            if folder.predict and name in folder.scenes and id(folder) not in done
        ]

    def predict(self, name: str, on_progress: Callable[[int, int], None]) -> None:
        """Predict a scene by all that can, and add the maps. Raises `GeotuneError` if one fails."""
        for folder in self.predictors(name):
            assert folder.predict is not None
            part = folder.predict(name, on_progress)
            with self._locks[name]:
                self._predicted.setdefault(name, []).append((folder, part))
                self._opened.pop(name, None)

    def _open(self, name: str) -> SceneLayers:
        parts: list[tuple[FolderContent, Part]] = []
        errors: list[GeotuneError] = []
        for folder in self.folders:
            if name in folder.scenes:
                try:
                    parts.append((folder, folder.scenes[name]()))
                except GeotuneError as error:
                    errors.append(error)
        parts += self._predicted.get(name, [])
        if not parts:
            raise errors[0]
        predicted = any(_has_maps(part) for _, part in parts)
        several = len({folder.title for folder, part in parts if _has_maps(part)}) > 1
        grid = _scene_grid([part for _, part in parts])
        layers: list[RasterLayer | FeatureLayer] = []
        for folder, part in parts:
            own: list[RasterLayer | FeatureLayer] = []
            for source, of_source in part.rasters:
                own += _on_own_grid(of_source, MapGrid.of(source), grid)
            own += part.features
            for layer in own:
                shared = layer.role in ("image", "labels")
                if shared and any(other.role == layer.role for other in layers):
                    continue  # the same in another folder
                title = f"{layer.title} ({folder.title})" if several and not shared else layer.title
                covered = layer.role == "labels" and predicted
                layers.append(replace(layer, title=title, visible=layer.visible and not covered))
        layers = [_in_colors_of_maps(layer, layers) for layer in layers]
        return SceneLayers(
            grid,
            tuple(sorted(layers, key=lambda layer: _ORDER.index(layer.role))),
            facts=[row for _, part in parts for row in part.facts],
            notes=[*(note for _, part in parts for note in part.notes), *map(str, errors)],
            version=next(self._versions),
        )


def _in_colors_of_maps(
    layer: RasterLayer | FeatureLayer, layers: Sequence[RasterLayer | FeatureLayer]
) -> RasterLayer | FeatureLayer:
    """Shapes with the colours of a class map that has all their classes."""
    if isinstance(layer, FeatureLayer):
        for other in layers:
            style = other.style if isinstance(other, RasterLayer) else None
            if isinstance(style, ClassStyle) and set(layer.classes) <= set(style.classes):
                return replace(layer, colored_as=style.classes)
    return layer


def _has_maps(part: Part) -> bool:
    """Whether a part has layers that those of other folders may be compared with."""
    roles = {layer.role for _, of_raster in part.rasters for layer in of_raster}
    roles |= {layer.role for layer in part.features}
    return bool(roles - {"image", "labels"})


def _scene_grid(parts: Sequence[Part]) -> MapGrid:
    """That of the image, else of a map, else of shapes."""
    rasters = [raster for part in parts for raster in part.rasters]
    images = [source for source, layers in rasters if any(x.role == "image" for x in layers)]
    if rasters:
        return MapGrid.of((images or [source for source, _ in rasters])[0])
    return next(part.grid for part in parts if part.grid is not None)


def _on_own_grid(layers: Sequence[RasterLayer], own: MapGrid, scene: MapGrid) -> list[RasterLayer]:
    """The layers of a raster; with their own grid if it is not that of the scene."""
    return [layer if own == scene else replace(layer, grid=own) for layer in layers]
