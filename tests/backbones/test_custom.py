"""The custom backbone of docs/how-to/own-backbone.md."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import geotune
from geotune.api.fitting import fit
from geotune.api.prediction import predict
from geotune.config import parse_recipe
from helpers.errors import raises

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "own-backbone.md"
OWN = "python/mine.py:build"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the documentation, in the current folder."""
    match = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    code = match.group(1)
    assert code.count("\n") < 40
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(code)
    return tmp_path / "mine.py"


def test_it_works_with_methods_and_rejects_unsupported_options(file: Path) -> None:
    backbone = geotune.backbone(OWN, bands=3, pretrained=False)
    assert [tap.stride for tap in backbone.taps] == [2, 4, 8, 16]
    assert [tap.channels for tap in backbone.taps] == [16, 32, 64, 128]
    again = geotune.backbone(OWN, bands=3, pretrained=False)
    assert backbone.fingerprint == again.fingerprint and backbone.random_weights
    for method in (geotune.Full(), geotune.Frozen(), geotune.Est()):
        encoder = geotune.attach(geotune.backbone(OWN, bands=3, pretrained=False), method)
        assert encoder(torch.randn(1, 3, 37, 50)).maps
    with raises("backbone-option", key="backbone.patch_size", mentions=[OWN]):
        geotune.backbone(OWN, bands=3, patch_size=4)
    with raises("backbone-option", key="backbone.metadata", mentions=["location", "time"]):
        geotune.backbone(OWN, bands=3, metadata=["location"])


def test_it_uses_the_dates_of_the_files_in_fit_test_and_predict(
    file: Path, tiny_scenes: Path, tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(tiny_scenes, tmp_path / "dated")
    for i, scene in enumerate(sorted((tmp_path / "dated" / "scenes").iterdir())):
        with rasterio.open(scene, "r+") as handle:
            handle.update_tags(ACQUISITIONDATETIME=f"2020-0{2 * i + 1}-15 10:00:00")
    values = tiny_values({"train.epochs": 1, "method": {"kind": "full"}})
    values["backbone"] = {
        "name": OWN,
        "pretrained": False,
        "bands": values["backbone"]["bands"],
        "metadata": ["time"],
    }
    undated = parse_recipe(values)
    with raises("metadata-missing", mentions=[".tif"]):
        fit(undated, run=tmp_path / "undated")
    assert not (tmp_path / "undated").exists()
    for key in ("scenes", "labels"):
        values["data"][key] = values["data"][key].replace(str(tiny_scenes), str(tmp_path / "dated"))
    run = tmp_path / "run"
    fit(parse_recipe(values), run=run)

    scene = tmp_path / "dated" / "scenes" / "d.tif"
    for command in (
        lambda **options: geotune.test(run, **options),
        lambda **options: predict(run, [str(scene)], tmp_path / "maps", **options),
    ):
        with raises("adapter-code", key="backbone.name", file=run, mentions=["--backbone", OWN]):
            command()
        assert command(backbone=OWN)
    with raises("metadata-missing", mentions=["d.tif"]):
        predict(run, [str(tiny_scenes / "scenes" / "d.tif")], tmp_path / "m", backbone=OWN)

    def shares(day: str) -> Any:
        with rasterio.open(scene, "r+") as handle:
            handle.update_tags(ACQUISITIONDATETIME=day)
        predict(run, [str(scene)], tmp_path / "maps", backbone=OWN, probabilities=True)
        with rasterio.open(tmp_path / "maps" / "d_probabilities.tif") as handle:
            return handle.read()

    assert not np.array_equal(shares("2020-01-01"), shares("2020-12-01"))


@pytest.mark.parametrize(
    ("name", "code", "mention"),
    [
        ("python/mine.py", "backbone-unknown", "FILE.py:NAME"),
        ("python/mine.txt:build", "backbone-unknown", "FILE.py:NAME"),
        ("python/gone.py:build", "file-missing", "gone.py"),
        ("python/mine.py:gone", "backbone-code", "gone"),
        ("python/bad.py:build", "backbone-code", "ZeroDivisionError"),
        ("python/other.py:build", "backbone-code", "int"),
    ],
)
def test_invalid_custom_backbones_are_rejected(
    file: Path, name: str, code: str, mention: str
) -> None:
    (file.parent / "bad.py").write_text("1 / 0\n")
    (file.parent / "other.py").write_text("def build(spec):\n    return 1\n")
    with raises(code, key="backbone.name", mentions=[mention]):
        geotune.backbone(name, bands=3, pretrained=False)
