"""`geotune demo` on smaller scenes for one epoch; `test_readme.py` runs the unchanged command."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio

from geotune.config import Recipe, parse_recipe

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def smaller_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(values: dict[str, Any], source: str) -> Recipe:
        values = copy.deepcopy(values)
        values["data"] |= {"size": 64, "window": 32, "samples": 4}
        values["train"] |= {"epochs": 1, "batch_size": 4}
        return parse_recipe(values, source)

    monkeypatch.setattr("geotune.api.demo_workflow.parse_recipe", parse)


def test_demo_writes_every_file(
    geotune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = geotune("demo")
    assert code == 0, err
    assert "random weights" in err
    printed = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    for label in ("recipe", "adapter", "map", "polygons", "report"):
        assert Path(printed[label]).is_file(), label
    scene = Path("geotune-demo/scenes") / Path(printed["map"]).name.replace("_classes", "")
    with rasterio.open(printed["map"]) as file:
        assert file.crs is not None and file.shape == (64, 64)
        if scene.is_file():
            with rasterio.open(scene) as image:
                assert file.transform == image.transform
    report = Path(printed["report"]).read_text(encoding="utf-8")
    assert "random" in report and "IoU" in report


def test_demo_keeps_a_folder_that_is_not_a_run(geotune: Command, tmp_path: Path) -> None:
    run = tmp_path / "mine" / "est"
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    code, _, err = geotune("demo", run.parent)
    assert code == 1 and f"{run}: exists and is not a run of geotune" in err
    assert [path.name for path in run.parent.rglob("*")] == ["est", "notes.txt"]
