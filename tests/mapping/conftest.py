"""An untrained model and scenes to map, with workers in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from geotune.config import load_recipe
from geotune.factory.build_model import build_training
from geotune.factory.save_model import save_model
from geotune.mapping.actor import Actor
from geotune.mapping.workers import WorkerOptions
from helpers.adapters import STATISTICS


class WorkersHere:
    """Workers that share this process."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._lock = threading.Lock()

    def start(self, number: int) -> Any:
        with self._lock:  # random weights are those of the process
            actor: Any = Actor(asdict(replace(self._options, number=number)))
        actor.close = lambda: None
        return actor

    def close(self) -> None:
        pass


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("geotune.mapping.map_scenes.LocalWorkers", WorkersHere)


@pytest.fixture(scope="session")
def untrained(
    tmp_path_factory: pytest.TempPathFactory, tiny_values: Callable[..., dict[str, Any]]
) -> Callable[..., Path]:
    """The adapter of an untrained model of the tiny scenes, `untrained({"task.kind": ...})`."""

    def save(changes: dict[str, Any] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny_values(changes or {})), encoding="utf-8")
        recipe = load_recipe(path)[0]
        save_model(folder, build_training(recipe, STATISTICS), recipe)
        return folder

    return save


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of 150x130 and 200x64 pixels; a corner of the first has no data."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, (height, width), x in (("a", (150, 130), 500_000), ("b", (200, 64), 501_000)):
        rng = np.random.default_rng(height)
        image = np.kron(
            rng.normal(size=(3, height // 10 + 1, width // 10 + 1)), np.ones((1, 10, 10))
        )
        image = (100 * image + 460)[:, :height, :width].astype(np.float32)
        image[:, :40, :50] = -1
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=3, height=height, width=width,
            dtype="float32", nodata=-1, crs="EPSG:32633", tiled=True, blockxsize=64, blockysize=64,
            compress="deflate",
            transform=rasterio.transform.from_origin(x, 5_000_000, 10, 10),
        ) as file:  # fmt: skip
            file.write(image)
            file.descriptions = ("red", "green", "nir")
    return folder
