"""`--precision` of `geotune predict` and `geotune map`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import torch

import geotune
from geotune.api.prediction import predict
from geotune.mapping.map_scenes import map_scenes
from helpers.errors import raises

pytestmark = pytest.mark.usefixtures("workers_here")

TASKS: dict[str, dict[str, Any]] = {
    "regress": {"task": {"kind": "regress", "quantity": "height", "mean": 5, "std": 2}},
    "detect": {"task": {"kind": "detect", "classes": ["ship"]}, "decoder": {"kind": "fcos"}},
    "classify": {
        "task": {"kind": "classify", "classes": ["a", "b"]},
        "decoder": {"kind": "global_pool"},
        "data": {"kind": "images", "images": "i", "window": 32, "split": {"kind": "random"}},
    },
}


def test_probabilities_are_those_under_autocast(
    untrained: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    """One window is the whole scene, so that nothing is blended."""
    run, scene = untrained(), tiny_scenes / "scenes" / "d.tif"
    with rasterio.open(scene) as file:
        pixels = file.read()
    model = geotune.load_adapter(run)
    exact = model(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(pixels)
    assert np.abs(exact - expected).max() > 1e-4, "else the precision is not tested"
    predict(
        run, scene, tmp_path, precision="bf16-mixed", probabilities=True, window=64, device="cpu"
    )
    with rasterio.open(tmp_path / "d_probabilities.tif") as file:
        found = file.read() * file.scales[0]
    np.testing.assert_allclose(found, expected, atol=0.51 * file.scales[0])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_predicts_nearly_the_same_in_bfloat16(
    untrained: Callable[..., Path], tiny_scenes: Path, tmp_path: Path, task: str
) -> None:
    run, scene = untrained(TASKS[task]), tiny_scenes / "scenes" / "d.tif"
    found: list[Any] = []
    for precision in ("32-true", "bf16-mixed"):
        score = {"score": 0.0} if task == "detect" else {}
        [result] = predict(
            run, scene, tmp_path / precision, precision=precision, window=64, device="cpu", **score
        )
        [path] = [p for p in result.files if p.suffix in (".tif", ".gpkg", ".csv")]
        if path.suffix == ".tif":
            with rasterio.open(path) as file:
                found.append(file.read(1))
        elif path.suffix == ".gpkg":
            found.append(np.sort(pyogrio.read_dataframe(path)["score"])[-5:])
        else:
            found.append(np.genfromtxt(path, delimiter=",", skip_header=1)[3:])
    one, two = found
    assert not np.array_equal(one, two, equal_nan=True)
    np.testing.assert_allclose(one, two, rtol=0.05, atol=0.05)


def test_a_map_is_that_of_predict_and_of_one_precision(
    untrained: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    run, options = untrained(), {"device": "cpu", "probabilities": True}
    map_scenes(
        run, str(scenes / "a.tif"), tmp_path / "map", tile=64, precision="bf16-mixed", **options
    )
    predict(run, str(scenes / "a.tif"), tmp_path / "predicted", precision="bf16-mixed", **options)
    for path in (tmp_path / "predicted").glob("*.tif"):
        assert path.read_bytes() == (tmp_path / "map" / "scenes" / path.name).read_bytes()
    with raises("map-exists", mentions=["precision"]):
        map_scenes(run, str(scenes / "a.tif"), tmp_path / "map", tile=64, **options)


def test_an_unknown_precision_is_refused_before_anything_is_written(
    untrained: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    scene, out = tiny_scenes / "scenes" / "d.tif", tmp_path / "out"
    calls: list[Callable[..., Any]] = [predict, map_scenes, geotune.embed]
    for call in calls:
        with raises("option-invalid", mentions=["'fp16'", "32-true or bf16-mixed"]):
            call(untrained(), scene, out, precision="fp16")
    assert not out.exists()


def test_features_in_bfloat16_are_nearly_those_in_float32(
    untrained: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    scene = tiny_scenes / "scenes" / "d.tif"
    found = []
    for precision in ("32-true", "bf16-mixed"):
        result = geotune.embed(
            untrained(), scene, tmp_path / precision, precision=precision, device="cpu"
        )
        with rasterio.open(result.scenes[0].features_path) as file:
            found.append(file.read())
    assert not np.array_equal(*found)
    np.testing.assert_allclose(*found, atol=0.05 * np.abs(found[0]).max())


def test_a_slow_precision_is_noted_once(
    monkeypatch: pytest.MonkeyPatch,
    untrained: Callable[..., Path],
    scenes: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("geotune.utils.precision.bf16_factor", lambda: 12.0)
    run, noted = untrained(), []
    predicted = predict(
        run, str(scenes / "*.tif"), tmp_path / "p", precision="bf16-mixed", device="cpu"
    )
    map_scenes(
        run,
        str(scenes / "*.tif"),
        tmp_path / "map",
        tile=64,
        workers=2,
        precision="bf16-mixed",
        device="cpu",
        on_message=noted.append,
    )
    of_predict = [note for each in predicted for note in each.notes]
    assert [sum("12x slower than 32-true" in each for each in n) for n in (of_predict, noted)] == [
        1,
        1,
    ]
