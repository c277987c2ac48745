"""One run of a map: its plan, its model, which is loaded once, and its scenes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from geotune.api.environment import pick_device
from geotune.api.predict_options import LoadOptions
from geotune.api.predicted_scenes import PredictedScenes
from geotune.api.predictor import Predictor, predicting_adapter
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.inference.image_table import image_rows
from geotune.mapping import tile_files
from geotune.mapping.options import MapOptions
from geotune.mapping.plan import TABLE, Plan, Tile, read_plan
from geotune.mapping.request import adapter_hashes
from geotune.mapping.scene_files import changed_input, from_values
from geotune.mapping.store import Store, open_store
from geotune.mapping.tile_files import TileFormat
from geotune.mapping.tile_states import write_tile
from geotune.mapping.workers import MappedRun

INPUT_ERRORS = frozenset(
    {"file-unreadable", "file-missing", "file-access", "raster-dtype", "pixels-invalid",
     "grid-mismatch", "output-not-finite", "image-too-large"}
)  # fmt: skip
"""Errors that are about a tile or its scene; any other one is about all tiles."""


def load_predictor(
    run: str | Path, options: MapOptions, files: LoadOptions, number: int
) -> Predictor:
    """Load the models of a map; workers share several GPUs in turn, by their `number`.

    Raises `GeotuneError` as `Predictor` does.
    """
    adapter, config = predicting_adapter(run)
    device = pick_device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", number % torch.cuda.device_count())
    return Predictor(adapter, config, options.predict, files, device)


class TileWorker:
    """Predicts and writes the tiles of a run.

    Raises `GeotuneError` if there is no plan, and for another run than that of the plan.

    Args:
        run: see `MappedRun`.
        files: where the model is.
        number: of the worker.
    """

    def __init__(self, run: MappedRun, files: LoadOptions, number: int) -> None:
        self.options = MapOptions.from_values(run.options)
        self.store: Store = open_store(run.out)
        plan = read_plan(self.store)
        if plan is None:
            raise GeotuneError(
                f"{run.out}: has no plan; run the command again",
                code="map-incomplete",
                key="--out",
            )
        self.plan: Plan = plan
        self.predictor = load_predictor(run.run, self.options, files, number)
        if adapter_hashes(self.predictor.adapters) != plan.request["adapters"]:
            raise GeotuneError(
                f"{run.run}: changed since {run.out} was planned; choose another --out",
                code="map-exists",
                key="--out",
            )
        scenes = self.options.scenes
        self._scenes = PredictedScenes(self.predictor.adapters[0], self.predictor.config, scenes)
        self.source = lru_cache(maxsize=64)(self._open)

    @property
    def format(self) -> TileFormat:
        """How the tiles are stored."""
        return tile_format(self.predictor)

    def predict(self, tile: Tile, faults: dict[str, str]) -> Iterable[Any]:
        """What the model predicts in a tile; images of a table that cannot be read are `faults`."""
        predictor = self.predictor
        if predictor.kind == "table":
            return self.rows(tile, faults, predictor.model, predictor.rows)
        steps, source = predictor.steps, self.source(tile.scene)
        return steps.predict(predictor.model, source, predictor.windows(), area=tile.core)

    def write(self, tile: Tile, predicted: Iterable[Any], faults: dict[str, str]) -> None:
        """Write a tile out of what was predicted."""
        facts: dict[str, Any] = {"device": self.predictor.device.type}
        source = None
        if self.predictor.kind == "table":
            facts["faults"] = faults
        else:
            source = self.source(tile.scene)
        content, facts["windows"] = self.format.pack(
            predicted, tile, source, self.predictor.novelty
        )
        if source is not None:  # it is open since an earlier tile
            self._check_unchanged(tile.scene)
        write_tile(self.store, self.plan, tile, self.format.suffix, content, facts)

    def rows(self, tile: Tile, faults: dict[str, str], model: Any, rows: Any) -> list[Any]:
        """The rows of some images; images that cannot be read are added to `faults`.

        Args:
            tile: of a table.
            faults: see above.
            model: maps images to outputs `(B, K)`.
            rows: converts outputs to columns.
        """
        predictor, names = self.predictor, list(self.plan.scenes)
        sources = {}
        for name in names[tile.row : tile.row + tile.height]:
            try:
                sources[name] = self.source(name)
            except GeotuneError as error:
                faults[name] = str(error)
        while sources:
            try:
                found = list(image_rows(model, sources, rows=rows, **predictor.image_options))
                for name in sources:
                    try:
                        self._check_unchanged(name)
                    except GeotuneError as error:
                        faults[name] = str(error)
                return [(name, row) for name, row in found if name not in faults]
            except GeotuneError as error:
                broken = [
                    name
                    for name, source in sources.items()
                    if error.file in (*source.paths, *source.files)
                ]
                if error.code not in INPUT_ERRORS or not broken:
                    raise
                for name in broken:
                    faults[name] = str(error)
                    del sources[name]
        return []

    def _open(self, name: str) -> RasterSource:
        """Open a scene. Raises `GeotuneError` if its files changed since the plan was made."""
        self._check_unchanged(name)
        return self._scenes.open({name: from_values(self.plan.request["scenes"][name])})[name]

    def _check_unchanged(self, name: str) -> None:
        """Raise `GeotuneError` if the files of a scene changed since the plan was made."""
        if changed := changed_input(self.plan.request["scenes"][name]):
            raise GeotuneError(
                f"{changed}: was changed or removed since the map was planned; restore it, or map "
                "the scene into another folder",
                code="file-missing",
                file=changed,
            )

    def sources_of(self, scene: str) -> dict[str, RasterSource]:
        """The images of a scene, or all of a table; without those that cannot be read."""
        if scene != TABLE or self.predictor.kind != "table":
            return {scene: self.source(scene)}
        sources = {}
        for name in self.plan.scenes:
            try:
                sources[name] = self._open(name)
            except GeotuneError as error:
                if error.code not in INPUT_ERRORS:
                    raise
        return sources


def tile_format(predictor: Predictor) -> TileFormat:
    """How the tiles of a prediction are stored."""
    if predictor.kind == "classes":
        layers = predictor.steps.predict.keywords["layers"]  # type: ignore[attr-defined]
        return tile_files.class_format(
            len(layers.classes),
            probabilities=layers.probabilities,
            measures=len(layers.measures) if layers.uncertainty else 0,
        )
    if predictor.kind == "values":
        return tile_files.value_format(2 if predictor.options.uncertainty else 1)
    return tile_files.object_format() if predictor.kind == "objects" else tile_files.row_format()
