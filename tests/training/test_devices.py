"""Two processes do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geotune.api.fitting import FitResult
from geotune.training.run_dir import RunDir

GEOTUNE = Path(sys.executable).parent / "geotune"


ONE = {"task.loss": "ce", "train.epochs": 2, "train.lr": 1e-3, "data.window": 28}
FULL = {"method": {"kind": "full", "stem_width": 0}}


def command(recipe: Path, strategy: str) -> list[str]:
    settings = ["train.devices=2", "train.accelerator=cpu", f"train.strategy={strategy}"]
    return [str(GEOTUNE), "fit", str(recipe), *settings, "--json"]


def run(recipe: Path, strategy: str) -> dict[str, Any]:
    """Train on two processes; what the command printed."""
    done = subprocess.run(
        command(recipe, strategy),
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)  # one object: the helper process says nothing
    return said


def assert_alike(run: Path, other: Path, tolerance: float) -> None:
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (run, other)]
    assert metrics[0]["val"]["miou"] == pytest.approx(metrics[1]["val"]["miou"], abs=0.01)
    for found in metrics:
        assert sum(map(sum, found["confusion"]["val"])) == 64 * 64  # each pixel once
    tensors = [load_file(path / "adapter.safetensors") for path in (run, other)]
    assert tensors[0].keys() == tensors[1].keys()
    for name in tensors[0]:
        torch.testing.assert_close(
            tensors[0][name], tensors[1][name], rtol=tolerance, atol=tolerance
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        pytest.param("ddp", {}, id="ddp-est"),
        pytest.param("fsdp", {"train.activation_checkpointing": "all"}, id="fsdp-est-recompute"),
    ],
)
def test_two_processes(
    train: Callable[..., FitResult],
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    strategy: str,
    changes: dict[str, Any],
) -> None:
    """The batch is the same, halved; so without batch norm or dropout, and with a loss that is a
    mean over as many pixels in each half, only the order of sums differs.

    The mean IoU may differ by 0.01, tensors by 1e-4. Of nine windows of validation one process has
    five, the other four. With batch norm every process has its own statistics on CPUs, and Dice
    is that of each half, so there more would have to be allowed.
    """
    changes = ONE | changes
    two = run(tiny_recipe(changes), strategy)
    assert two["did"] == "trained"
    train(tmp_path / "one", changes)
    assert_alike(tmp_path / "run", tmp_path / "one", 1e-4)
    runs = {path.parent for path in tmp_path.rglob("recipe.yaml")} - {tmp_path}
    assert runs == {tmp_path / "run", tmp_path / "one"}


@pytest.mark.slow
def test_parted_and_killed(
    train: Callable[..., FitResult], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """All weights and Adam's moments are parted; the main process is killed after an epoch or
    more, and the same command goes on at once. In the end it is what one process does."""
    changes = ONE | FULL | {"train.epochs": 6, "data.samples": 16}
    recipe, last = tiny_recipe(changes), RunDir(tmp_path / "run").last_checkpoint
    process = subprocess.Popen(command(recipe, "fsdp"), stdout=subprocess.PIPE, stderr=-1)
    deadline = time.monotonic() + 500
    while not last.exists():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "run" / "run.json").exists()

    assert run(recipe, "fsdp")["did"] == "went on"
    train(tmp_path / "one", changes)
    assert_alike(tmp_path / "run", tmp_path / "one", 1e-5)
