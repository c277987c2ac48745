"""Two processes do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geotune.jobs.fit import FitResult

GEOTUNE = Path(sys.executable).parent / "geotune"


@pytest.mark.slow
def test_two_processes(
    train: Callable[..., FitResult], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """The batch is the same, halved; so without batch norm or dropout, and with a loss that is a
    mean over as many pixels in each half, only the order of sums differs.

    The mean IoU may differ by 0.01, tensors by 1e-3. Of nine windows of validation one process has
    five, the other four. With batch norm every process has its own statistics on CPUs, and Dice
    is that of each half, so there more would have to be allowed.
    """
    changes: dict[str, Any] = {"task.loss": "ce", "train.epochs": 2, "train.lr": 1e-3}
    changes |= {"data.window": 28}  # nine in a scene of 64 pixels
    recipe = tiny_recipe(changes)
    settings = ["train.devices=2", "train.accelerator=cpu", "train.strategy=ddp"]
    done = subprocess.run(
        [str(GEOTUNE), "fit", str(recipe), *settings, "--json"],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # one object: the helper process says nothing
    assert two["did"] == "trained"
    one = train(tmp_path / "one", changes)

    assert two["metrics"]["miou"] == pytest.approx(one.metrics["miou"], abs=0.01)
    tensors = [load_file(run / "adapter.safetensors") for run in (tmp_path / "run", one.run)]
    assert tensors[0].keys() == tensors[1].keys()
    for name in tensors[0]:
        torch.testing.assert_close(tensors[0][name], tensors[1][name], rtol=1e-3, atol=1e-3)
    confusion = [
        json.loads((run / "metrics.json").read_text())["confusion"]["val"]
        for run in (tmp_path / "run", one.run)
    ]
    assert sum(map(sum, confusion[0])) == sum(map(sum, confusion[1])) == 64 * 64
    runs = {path.parent for path in tmp_path.rglob("recipe.yaml")} - {tmp_path}
    assert runs == {tmp_path / "run", tmp_path / "one"}
