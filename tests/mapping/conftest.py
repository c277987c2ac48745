"""An untrained model and scenes to map, with workers in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from geotune.config import load_recipe
from geotune.factory.build_model import build_training
from geotune.mapping.actor import Actor
from geotune.mapping.workers import WorkerOptions
from helpers.adapters import STATISTICS, save_built


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
        save_built(folder, build_training(recipe, STATISTICS), recipe)
        return folder

    return save
