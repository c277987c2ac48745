"""Adapters of untrained models, and adapters without their run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geotune.adapter_config import ADAPTER_CONFIG, TENSORS
from geotune.api.prediction import predict
from geotune.config import Recipe
from geotune.factory.build_model import build_training
from geotune.factory.save_model import save_model
from geotune.hub.manifest import write_manifest
from geotune.types import BandStatistics

STATISTICS = BandStatistics(("red", "green", "nir"), (430.0, 460.0, 490.0), (75.0, 110.0, 150.0), 9)
"""Of the tiny scenes, roughly."""


def save_pushed(folder: Path, recipe: Recipe) -> Path:
    """Save the adapter of an untrained model with its manifest, as a push writes it."""
    save_model(folder, build_training(recipe, STATISTICS), recipe)
    write_manifest(folder, [ADAPTER_CONFIG, TENSORS])
    return folder


def check_adapter_alone(run: Path, scenes: Sequence[Path], folder: Path, **options: Any) -> None:
    """Check that the two files of an adapter give the same bytes as the run that they are from."""
    alone = folder / "alone"
    alone.mkdir()
    for name in (TENSORS, ADAPTER_CONFIG):
        shutil.copy(run / name, alone)
    written = []
    for source, out in ((run, folder / "of_run"), (alone, folder / "of_adapter")):
        results = predict(source, [str(path) for path in scenes], out, device="cpu", **options)
        assert sorted(file for result in results for file in result.files) == sorted(
            path for path in out.iterdir() if path.suffix not in (".xml", ".qml")
        )
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert written[0] and written[0] == written[1]
