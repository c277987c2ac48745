"""`geotune predict --novelty`, from the training to the map."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

import geotune
from geotune.adapter_config import load_adapter_config
from geotune.api.sharing.shared_adapter import share_adapter
from geotune.hub.manifest import file_hash
from helpers.errors import raises


@pytest.fixture
def run(tiny_recipe: Callable[..., Path]) -> Path:
    """A finished run with enough windows for a reference."""
    return geotune.fit(tiny_recipe({"data.window": 16, "train.epochs": 1})).run


def test_other_scenes_are_farther_and_the_prediction_is_the_same(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    assert load_adapter_config(run).prediction.novelty == file_hash(run / "novelty.safetensors")
    known, strange = tiny_scenes / "scenes" / "c.tif", tmp_path / "strange.tif"
    with rasterio.open(known) as file:
        pixels, profile, bands = file.read(), file.profile, file.descriptions
    with rasterio.open(strange, "w", **profile) as file:
        file.write(pixels[:, :, ::-1] * np.array([3, -1, 2])[:, None, None])
        file.descriptions = bands
    made = geotune.predict(run, [known, strange], tmp_path / "maps", novelty=True, tta="flips")
    shares = []
    for each in made:
        assert each.novelty_path in each.files
        with rasterio.open(each.novelty_path) as file, rasterio.open(each.classes_path) as classes:
            assert (file.crs, file.transform) == (classes.crs, classes.transform)
            shares.append(file.read(1).mean() / 254)
        assert each.novelty_path.with_suffix(".qml").is_file()
        assert "novelty" in each.project_path.read_text()
    assert shares[1] > 0.95 > shares[0]
    [plain] = geotune.predict(run, known, tmp_path / "plain", tta="flips")
    assert plain.classes_path.read_bytes() == made[0].classes_path.read_bytes()
    assert plain.novelty_path is None


def test_a_changed_or_missing_reference_is_noticed(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    scene, path = tiny_scenes / "scenes" / "c.tif", run / "novelty.safetensors"
    content = path.read_bytes()
    share_adapter(run, tmp_path)
    assert (tmp_path / "novelty.safetensors").read_bytes() == content
    path.write_bytes(content[:-4] + b"abcd")
    with raises("adapter-mismatch", file=path):
        geotune.predict(run, scene, tmp_path / "maps", novelty=True)
    path.unlink()
    with raises("adapter-missing", file=path):
        geotune.predict(run, scene, tmp_path / "maps", novelty=True)
    values = json.loads((run / "adapter.json").read_text())
    del values["prediction"]["novelty"]  # as an older version wrote it
    (run / "adapter.json").write_text(json.dumps(values))
    with raises("option-not-applicable", mentions=[f"geotune finish {run}"]):
        geotune.predict(run, scene, tmp_path / "maps", novelty=True)
    assert not (tmp_path / "maps").exists()
    assert geotune.finish(run).status == "complete"
    assert path.read_bytes() == content
    assert load_adapter_config(run).prediction.novelty == file_hash(path)
