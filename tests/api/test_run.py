"""Finished runs and trained models from Python."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import rasterio
import torch

import geotune
from geotune.boxes.structures import Detections
from geotune.data.labels.targets import ImageClass
from geotune.data.raster.windows import Window
from geotune.types import Sample
from helpers.errors import raises


@pytest.fixture(scope="module")
def run(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> geotune.Run:
    folder = tmp_path_factory.mktemp("run") / "tiny"
    return geotune.fit(tiny_values(), ["train.epochs=2"], run=folder).load()


@pytest.fixture(scope="module")
def scene(tiny_scenes: Path) -> Path:
    return tiny_scenes / "scenes" / "d.tif"


def test_a_run_has_metrics_history_report_and_recipe(run: geotune.Run) -> None:
    assert 0 <= run.metrics["val"]["miou"] <= 1
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.report.is_file()
    assert run.recipe.train.epochs == 2
    assert run.notes == run.summary["notes"]
    assert repr(run) == f"Run({str(run.path)!r})"


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with raises("run-incomplete"):
        geotune.load_run(tmp_path)


def test_predict_returns_the_map_that_it_would_write(
    run: geotune.Run, scene: Path, tmp_path: Path
) -> None:
    classes = run.predict(scene, device="cpu")
    files = run.predict(scene, tmp_path, device="cpu", polygons=False)
    assert isinstance(classes, np.ndarray) and isinstance(files, list)
    with rasterio.open(files[0]) as file:
        np.testing.assert_array_equal(classes, file.read(1))


def test_a_trained_model_takes_raw_pixels(run: geotune.Run, scene: Path) -> None:
    model = run.model()
    with rasterio.open(scene) as file:
        pixels = file.read()
    one = model(pixels)
    assert one.shape == (2, 64, 64) and one.dtype == np.float32
    np.testing.assert_allclose(one.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(model(np.stack([pixels, pixels]))[1], one, atol=1e-6)
    assert model.bands == ("red", "green", "nir") and model.classes == ("land", "water")


def test_pixels_in_other_units_give_one_warning(run: geotune.Run, scene: Path) -> None:
    with rasterio.open(scene) as file:
        pixels = file.read().astype("float32")
    model = run.model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(pixels)
        model(torch.from_numpy(pixels))
    for array in (pixels / 10_000, torch.from_numpy(pixels)[None] / 10_000):
        other = run.model()
        with pytest.warns(UserWarning, match="10,000 times smaller"):
            other(array)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other(array)


def test_another_number_of_channels_is_an_error(run: geotune.Run) -> None:
    with raises("array-shape", mentions=["(2, 32, 32)", "red, green, nir"]):
        run.model()(np.zeros((2, 32, 32)))


def test_plots_show_the_history_and_the_labels_of_a_window(
    run: geotune.Run, tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    shown = [[line.get_label() for line in ax.lines] for ax in run.plot().axes]
    assert shown[0] == ["val/loss", "train/loss", "best epoch"]
    assert shown[1][0] == "val/miou" and "step" not in shown[1]
    scenes = geotune.open_scenes(tiny_values())
    assert [scene.name for scene in scenes] == ["a", "b", "c", "d"]
    figure = geotune.plot(scenes[3], window=Window(0, 0, 32, 32), model=run.model())
    assert [ax.get_title() for ax in figure.axes] == ["image", "labels", "prediction"]
    figure.savefig(tmp_path / "plot.png")


def test_plots_show_objects_from_the_score_of_the_validation_on() -> None:
    class Model:
        """Finds objects whatever the image shows."""

        bands, classes = ("red",), ("ship", "crane")
        task = SimpleNamespace(output_kind="objects")
        score_thresholds: ClassVar = {"ship": 0.3, "crane": 0.6}

        def __call__(self, pixels: Any) -> Detections:
            boxes = torch.arange(16.0).reshape(4, 4)
            return Detections(
                boxes, torch.tensor([0.3, 0.29, 0.5, 0.6]), torch.tensor([0, 0, 1, 1])
            )

    sample = Sample(np.zeros((1, 16, 16), np.float32), ImageClass(0), "a", "a")
    figure = geotune.plot(sample, model=cast("Any", Model()), classes=["ship"])
    outlines = [patch.get_xy()[0] for patch in figure.axes[2].patches]
    assert sorted(outline[0] for outline in outlines) == [0, 12]


@pytest.mark.slow
def test_type_checkers_know_the_public_names(tmp_path: Path) -> None:
    valid = ["geotune.Est(reduction=8)", "geotune.fit('recipe.yaml', overwrite=True)"]
    invalid = {
        "geotune.Est(reductoin=8)": "reductoin",
        "geotune.fit('recipe.yaml', overwrit=True)": "overwrit",
        "geotune.Nothing": "Nothing",
    }
    code = tmp_path / "uses_public_names.py"
    code.write_text("\n".join(["import geotune", *valid, *invalid]) + "\n")
    source = Path(geotune.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(code)],
        capture_output=True,
        text=True,
        cwd=source.parent,  # with the cache of `make typecheck`, else it takes a minute
        env={"MYPYPATH": source.name},
    )
    errors = [
        line
        for line in done.stdout.splitlines()
        if code.name in line and " error: " in line  # the cache may know it from another folder
    ]
    assert len(errors) == len(invalid), done.stdout
    assert all(name in line for name, line in zip(invalid.values(), errors, strict=True))


def test_tab_completion_lists_the_public_names() -> None:
    assert dir(geotune) == sorted(geotune.__all__)
    assert {"fit", "predict", "load_run", "Est", "Run"} <= set(dir(geotune))
