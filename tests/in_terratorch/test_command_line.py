"""`terratorch fit` and `terratorch predict` with a method of an installed geotune."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys, torch
from terratorch.cli_tools import build_lightning_cli
fitted = build_lightning_cli(["fit", "-c", "config.yaml"])
tensors = {name: x for name, x in fitted.model.model.state_dict().items()}
before = build_lightning_cli(["-c", "config.yaml"], run=False).model.model.state_dict()
trained = {name for name, x in fitted.model.model.named_parameters() if x.requires_grad}
json.dump({
    "changed": [name for name, x in tensors.items() if not torch.equal(x, before[name])],
    "trained": sorted(trained),
}, open("result.json", "w"))
build_lightning_cli(["predict", "-c", "config.yaml", "--ckpt_path", "last.ckpt",
                     "--predict_output_dir", "maps"])
"""


def config(scenes: Path) -> dict[str, Any]:
    """A configuration of TerraTorch that names nothing of geotune but the backbone."""
    return {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "class_path": "ModelCheckpoint",
                    "init_args": {"dirpath": ".", "filename": "last", "monitor": None},
                }
            ],
        },
        "model": {
            "class_path": "terratorch.tasks.SemanticSegmentationTask",
            "init_args": {
                "model_factory": "EncoderDecoderFactory",
                "model_args": {
                    "backbone": "geotune_est__prithvi_eo_tiny",
                    "backbone_pretrained": False,
                    "backbone_bands": ["RED", "GREEN", "NIR_NARROW"],
                    "backbone_reduction": 8,
                    "decoder": "FCNDecoder",
                    "decoder_channels": 8,
                    "num_classes": 2,
                },
                "freeze_backbone": True,
                "loss": "ce",
                "ignore_index": -1,
                "lr": 0.01,
                "optimizer": "AdamW",
            },
        },
        "data": {
            "class_path": "GenericNonGeoSegmentationDataModule",
            "init_args": {
                "batch_size": 2,
                "num_workers": 0,
                "num_classes": 2,
                **{f"{split}_data_root": str(scenes / "scenes") for split in ("train", "val")},
                **{
                    f"{split}_label_data_root": str(scenes / "labels") for split in ("train", "val")
                },
                "test_data_root": str(scenes / "scenes"),
                "test_label_data_root": str(scenes / "labels"),
                "predict_data_root": str(scenes / "scenes"),
                "img_grep": "*.tif",
                "label_grep": "*.tif",
                "means": [430.0, 500.0, 560.0],
                "stds": [90.0, 120.0, 160.0],
            },
        },
    }


@pytest.mark.slow
@pytest.mark.skipif(find_spec("terratorch") is None, reason="needs geotune[terratorch]")
def test_terratorch_trains_and_predicts_with_a_method(tiny_scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(tiny_scenes)), encoding="utf-8")
    # an installed geotune: what pip writes of the entry points in pyproject.toml
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = tmp_path / "site" / "geotune_of_the_tree-1.dist-info"
    installed.mkdir(parents=True)
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (installed / "METADATA").write_text("Name: geotune-of-the-tree\nVersion: 1\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["changed"] and set(result["changed"]) <= {
        *result["trained"],
        *(name for name in result["changed"] if "running" in name or "num_batches" in name),
    }
    assert not any(name.startswith("encoder.encoder.backbone.") for name in result["changed"])
    assert any(name.startswith("encoder.encoder.reader.") for name in result["changed"])
    for name in "abcd":
        with (
            rasterio.open(tmp_path / "maps" / f"{name}_pred.tif") as file,
            rasterio.open(tiny_scenes / "scenes" / f"{name}.tif") as scene,
        ):
            assert file.shape == scene.shape and file.crs == scene.crs
            assert set(np.unique(file.read(1))) <= {0, 1}
