"""`geotune demo` on smaller scenes for one epoch; `test_tutorials.py` runs it as it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio
import timm
from safetensors.torch import save_file

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
    assert "random weights" not in err and "Apache-2.0" in err
    assert "backbone: geotune/convnext_mini with weights of geotune" in out
    for command in out.partition("Try next:")[2].strip().splitlines():
        words = command.partition("#")[0].split()
        assert words[0] == "geotune" and words[1] in ("fit", "predict") and Path(words[2]).exists()
    printed = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    for label in ("recipe", "adapter", "project", "map", "polygons", "report"):
        assert Path(printed[label]).is_file(), label
    scene = Path("geotune-demo/scenes") / Path(printed["map"]).name.replace("_classes", "")
    with rasterio.open(printed["map"]) as file:
        assert file.crs is not None and file.shape == (64, 64)
        if scene.is_file():
            with rasterio.open(scene) as image:
                assert file.transform == image.transform
    report = Path(printed["report"]).read_text(encoding="utf-8")
    assert "geotune/convnext_mini" in report and "IoU" in report


def test_demo_with_weights_of_a_file(
    geotune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = timm.create_model("resnet18", num_classes=0)
    save_file(model.state_dict(), "my.safetensors")
    code, out, err = geotune("demo", "--backbone", "my.safetensors", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["backbone"] == "timm/resnet18 with weights of my.safetensors"
    assert "random weights" not in err and "est_my" in result["report"]
    code, _, err = geotune("demo", "--backbone", "timm/no_such_model")
    assert code == 1 and "no_such_model" in err


def test_demo_keeps_a_folder_that_is_not_a_run(geotune: Command, tmp_path: Path) -> None:
    run = tmp_path / "mine" / "est"
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    code, _, err = geotune("demo", run.parent)
    assert code == 1 and f"{run}: exists and is not a run of geotune" in err
    assert [path.name for path in run.parent.rglob("*")] == ["est", "notes.txt"]
