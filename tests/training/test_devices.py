"""Training on two processes equals training on one."""

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


def run(recipe: Path, strategy: str, crashes: int = 0) -> dict[str, Any]:
    """Train on two processes; returns the JSON output.

    `crashes`: how often one of them may be ended by a signal; the training is resumed.
    """
    for _ in range(1 + crashes):
        done = subprocess.run(
            command(recipe, strategy),
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode >= 0 and "(process-lost)" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)  # only the main process prints
    return result


def assert_close(run: Path, other: Path, tolerance: float) -> None:
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (run, other)]
    assert metrics[0]["val"]["miou"] == pytest.approx(metrics[1]["val"]["miou"], abs=0.01)
    for values in metrics:
        assert sum(map(sum, values["confusion"]["val"])) == 64 * 64  # each pixel once
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
def test_two_processes_equal_one(
    train: Callable[..., FitResult],
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    strategy: str,
    changes: dict[str, Any],
) -> None:
    """Each process computes half of the batch. Without batch norm or dropout, and with a loss that
    averages equally many pixels in both halves, only the order of summation differs.

    Of nine validation windows one process has five, the other four. With batch norm or Dice the
    tolerances would have to be larger, because both are computed per process on CPUs.
    """
    changes = ONE | changes
    two = run(tiny_recipe(changes), strategy)
    assert two["status"] == "trained"
    train(tmp_path / "one", changes)
    assert_close(tmp_path / "run", tmp_path / "one", 1e-4)
    runs = {path.parent for path in tmp_path.rglob("recipe.yaml")} - {tmp_path}
    assert runs == {tmp_path / "run", tmp_path / "one"}


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_as_one(
    train: Callable[..., FitResult], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """The projections of the student's maps are averaged over the processes as its weights are."""
    train(tmp_path / "teacher", ONE)
    changes = {
        **ONE,
        "distill.run": str(tmp_path / "teacher"),
        "train.cache_folder": str(tmp_path / "cache"),
    }
    assert run(tiny_recipe(changes), "ddp")["summary"]["distill"]["cache"]["samples"] == 8 * 8
    train(tmp_path / "one", changes)
    assert_close(tmp_path / "run", tmp_path / "one", 1e-4)


@pytest.mark.slow
def test_fsdp_resumes_after_sigkill(
    train: Callable[..., FitResult], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Weights and optimizer state are sharded; the main process is killed after an epoch.

    PyTorch's own code has once crashed the resumed training with a damaged heap (2.15, gloo, on a
    busy machine); that is one more interruption, from which the same command must resume.
    """
    changes = ONE | FULL | {"train.epochs": 6, "data.samples": 16}
    recipe, last = tiny_recipe(changes), RunDir(tmp_path / "run").last_checkpoint
    process = subprocess.Popen(
        command(recipe, "fsdp"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 500
    while not last.exists():
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    _, stderr = process.communicate(timeout=500)  # until the other process has ended, too
    assert "process 1 of 2" in stderr and "resumes" in stderr and "(process-lost)" in stderr
    assert not (tmp_path / "run" / "run.json").exists()

    assert run(recipe, "fsdp", crashes=1)["status"] == "resumed"
    train(tmp_path / "one", changes)
    assert_close(tmp_path / "run", tmp_path / "one", 1e-5)


FAILING_LOSS = """
import math, os, sys
from pathlib import Path
from geotune import fit
from geotune.errors import GeotuneError
from geotune.tasks.segment import Segment

recipe, rank, call = sys.argv[1:]
own_rank = os.environ.get("LOCAL_RANK", "0")
loss_sums, calls = Segment.loss_sums, []


def failing(self, logits, masks):
    calls.append(1)
    factor = math.nan if (own_rank, len(calls)) == (rank, int(call)) else 1.0
    return {name: x * factor for name, x in loss_sums(self, logits, masks).items()}


Segment.loss_sums = failing
try:
    fit(recipe)
except GeotuneError as error:
    Path(recipe).with_name(f"error{own_rank}").write_text(f"{error.code}: {error}")
    sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "call", "batch"),
    [
        pytest.param(0, 3, 2, id="first-micro-batch"),
        pytest.param(1, 6, 3, id="last-of-epoch"),
    ],
)
def test_all_processes_stop_if_the_loss_of_one_is_not_finite(
    tiny_recipe: Callable[..., Path], tmp_path: Path, rank: int, call: int, batch: int
) -> None:
    """Three batches per epoch, in two micro-batches; only `rank` has the loss, in one of them."""
    changes = {"data.samples": 12, "train.accumulate_steps": 2, "train.devices": 2}
    recipe = tiny_recipe(changes | {"train.strategy": "ddp"})
    script = tmp_path / "script.py"
    script.write_text(FAILING_LOSS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(recipe), str(rank), str(call)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3, done.stderr
    found = [(tmp_path / f"error{i}").read_text(encoding="utf-8") for i in range(2)]
    assert found[0] == found[1]
    assert found[0].startswith(f"loss-not-finite: the loss is nan in epoch 1, batch {batch} (")
    assert not RunDir(tmp_path / "run").last_checkpoint.exists()
