"""`geotune predict` with several runs and orientations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geotune
from geotune.api.prediction import predict
from geotune.inference.geotiff import PROBABILITY_SCALE
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def fitted(tiny_values: Values, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Fits the tiny recipe with changes."""
    folder = tmp_path_factory.mktemp("runs")

    def fit(name: str, **changes: Any) -> Path:
        values = tiny_values({"train.epochs": 1, **changes})
        return geotune.fit(values, run=folder / name).run

    return fit


@pytest.fixture(scope="module")
def runs(fitted: Callable[..., Path]) -> list[Path]:
    return [fitted("first"), fitted("second", **{"train.seed": 1, "train.lr": 0.01})]


@pytest.fixture(scope="module")
def scene(tiny_scenes: Path) -> Path:
    return tiny_scenes / "scenes" / "d.tif"


def shares(run: Path, pixels: Any) -> Any:
    return geotune.load_run(run).model()(pixels)


def mean_over_orientations(run: Path, pixels: Any) -> Any:
    total = []
    for turns in range(4):
        for flip in (False, True):
            image = pixels[..., ::-1] if flip else pixels
            out = np.rot90(shares(run, np.rot90(image, turns, (1, 2)).copy()), -turns, (1, 2))
            total.append(out[..., ::-1] if flip else out)
    return np.stack(total)


def entropy(values: Any) -> Any:
    return -(values * np.log2(np.maximum(values, 1e-30))).sum(axis=-3)


def test_probabilities_and_uncertainty_are_those_of_all_members(
    runs: list[Path], scene: Path, tmp_path: Path
) -> None:
    """One window is the whole scene, so that nothing is blended."""
    options = {"window": 64, "device": "cpu", "polygons": False}
    [result] = predict(
        runs[0],
        scene,
        tmp_path,
        ensemble=[runs[1]],
        tta="d4",
        probabilities=True,
        uncertainty=True,
        **options,
    )
    with rasterio.open(scene) as file:
        pixels = file.read()
    members = np.concatenate([mean_over_orientations(run, pixels) for run in runs])
    mean = members.mean(axis=0)
    step = 0.51 / PROBABILITY_SCALE
    with rasterio.open(tmp_path / "d_probabilities.tif") as file:
        np.testing.assert_allclose(file.read() / PROBABILITY_SCALE, mean, atol=step + 1e-4)
    with rasterio.open(tmp_path / "d_uncertainty.tif") as file:
        assert file.descriptions == ("entropy", "disagreement")
        found = file.read() / PROBABILITY_SCALE
        np.testing.assert_allclose(found[0], entropy(mean), atol=step + 1e-3)
        expected = entropy(mean) - entropy(members).mean(axis=0)
        np.testing.assert_allclose(found[1], expected, atol=step + 1e-3)
        assert file.scales == (1 / PROBABILITY_SCALE,) * 2
    assert expected.max() > 0.01, "the members must differ, else nothing is tested"
    assert result.notes[0] == "means of 16 predictions: 2 models in 8 orientations"
    assert tmp_path / "d_uncertainty.tif" in result.files


def test_uncertainty_of_one_prediction_is_its_entropy(
    runs: list[Path], scene: Path, tmp_path: Path
) -> None:
    predict(runs[0], scene, tmp_path, uncertainty=True, window=64, device="cpu", polygons=False)
    with rasterio.open(scene) as file:
        expected = entropy(shares(runs[0], file.read()))
    with rasterio.open(tmp_path / "d_uncertainty.tif") as file:
        assert file.descriptions == ("entropy",)
        np.testing.assert_allclose(file.read(1) / PROBABILITY_SCALE, expected, atol=3e-3)
    predict(runs[0], scene, tmp_path, device="cpu", polygons=False)
    [later] = predict(runs[0], scene, tmp_path, device="cpu", polygons=False)
    assert any("d_uncertainty.tif: belongs to an earlier" in note for note in later.notes)
    assert not any("means of" in note for note in later.notes)


def test_an_ensemble_of_one_run_twice_is_that_run(
    runs: list[Path], scene: Path, tmp_path: Path, geotune: Command
) -> None:
    options = ("--device", "cpu", "--no-polygons", "--probabilities")
    assert geotune("predict", runs[0], scene, "--out", tmp_path / "one", *options)[0] == 0
    code, out, err = geotune(
        "predict",
        runs[0],
        scene,
        "--out",
        tmp_path / "two",
        *options,
        "--ensemble",
        runs[0],
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["scenes"][0]["uncertainty_path"] is None
    one, two = (tmp_path / name / "d_probabilities.tif" for name in ("one", "two"))
    with rasterio.open(one) as first, rasterio.open(two) as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_runs_that_cannot_be_averaged(
    runs: list[Path], fitted: Callable[..., Path], scene: Path, tmp_path: Path
) -> None:
    for name, changes, text in (
        ("classes", {"task.classes": ["land", "sea"]}, "task.classes is ['land', 'sea']"),
        ("bands", {"backbone.bands": ["red", "nir"]}, "its bands are red, nir, not"),
    ):
        other = fitted(name, **changes)
        with raises("ensemble-mismatch", file=other, mentions=[text, runs[0]]):
            predict(runs[0], scene, tmp_path, ensemble=[other], device="cpu")
    with raises("adapter-missing"):
        predict(runs[0], scene, tmp_path, ensemble=[tmp_path], device="cpu")
    assert not list(tmp_path.iterdir())
