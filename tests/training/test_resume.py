"""A resumed training is identical to an uninterrupted one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from geotune.api.fitting import FitResult, fit
from geotune.config import parse_recipe
from geotune.training.checkpointer import Checkpointer
from geotune.training.evaluate import Evaluation
from geotune.training.run_dir import RunDir
from helpers.errors import raises

Train = Callable[..., FitResult]
LORA = {"kind": "lora", "rank": 2, "dropout": 0.3, "stem_width": 0}
# full fine-tuning of a backbone with batch norm
FULL = {"backbone.name": "timm/test_resnet", "method": {"kind": "full", "stem_width": 4}}


def tensors(run: Path) -> bytes:
    return (run / "adapter.safetensors").read_bytes()


def history(run: Path) -> list[dict[str, str]]:
    """The rows of history.csv without wall times."""
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same(one: Path, other: Path) -> None:
    assert history(one) == history(other)
    assert tensors(one) == tensors(other)
    for name in ("metrics.json", "examples.npz"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"train.schedule": "cosine", "train.warmup": 0.4}, id="est-cosine-warmup"),
        pytest.param({"method": LORA, "train.accumulate_steps": 2}, id="lora-dropout-accumulate"),
        pytest.param({**FULL, "train.schedule": "constant"}, id="full-batchnorm"),
        # 3 micro-batches per epoch: a full step and one of a single micro-batch
        pytest.param({"data.samples": 5, "train.accumulate_steps": 2}, id="uneven-accumulate"),
        pytest.param({"train.precision": "bf16-mixed"}, id="bf16"),
        pytest.param({"train.workers": 2, "data.samples": 24}, id="workers"),
        pytest.param({"train.workers": 1, "train.cache": "memory"}, id="cached-worker"),
    ],
)
def test_interrupted_mid_epoch(
    train: Train, cut_off: Callable[..., None], tmp_path: Path, changes: dict[str, Any]
) -> None:
    changes = {**changes, "train.epochs": 2}
    train(tmp_path / "whole", changes)
    cut_off(tmp_path / "cut", changes, epoch=1)
    result = train(tmp_path / "cut", changes)
    assert result.status == "resumed"
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_plateau_schedule_resumes(
    train: Train, cut_off: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a negligible learning rate no epoch improves on the first."""
    monkeypatch.setattr("geotune.training.training_module.PLATEAU_EPOCHS", 2)
    changes = {"train.schedule": "plateau", "train.lr": 1e-12, "train.epochs": 5}
    train(tmp_path / "whole", changes)
    cut_off(tmp_path / "cut", changes, epoch=2)  # has waited for one epoch
    cut_off(tmp_path / "cut", changes, epoch=4)  # has halved the learning rate
    train(tmp_path / "cut", changes)
    rates = [float(row["lr"]) for row in history(tmp_path / "whole")]
    assert rates == pytest.approx([1e-12] * 3 + [5e-13] * 2)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_interrupted_several_times(
    train: Train, cut_off: Callable[..., None], tmp_path: Path
) -> None:
    changes = {"train.epochs": 3}
    train(tmp_path / "whole", changes)
    cut_off(tmp_path / "cut", changes, epoch=0)
    cut_off(tmp_path / "cut", changes, epoch=1, batch=0)
    cut_off(tmp_path / "cut", changes, epoch=2, batch=1)
    train(tmp_path / "cut", changes)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("epoch", [1, 2])
def test_early_stopping_resumes(
    train: Train, cut_off: Callable[..., None], tmp_path: Path, epoch: int
) -> None:
    changes = {"train.patience": 2, "train.lr": 1e-12, "train.epochs": 6}
    train(tmp_path / "whole", changes)
    assert len(history(tmp_path / "whole")) == 3  # the best epoch and two without improvement
    cut_off(tmp_path / "cut", changes, epoch=epoch)
    train(tmp_path / "cut", changes)
    assert_same(tmp_path / "whole", tmp_path / "cut")


class DiedError(BaseException):
    """Ends a training like a killed process, right after a file was written."""


FILES = {
    "checkpoint/best_validation.npz": 0,
    "checkpoint/best.safetensors": 0,
    "history.csv": 1,
    "checkpoint/last.part": 1,
    "checkpoint/previous.ckpt": 1,
    "checkpoint/last.ckpt": 1,
    "adapter.safetensors": 1,
    "adapter.json": 1,
    "report.html": 1,
    "run.json": 1,
}
"""Files in the order in which training writes them, and the epoch after which it is killed."""


@pytest.mark.parametrize("file", FILES)
def test_killed_after_each_file(train: Train, tmp_path: Path, two_epochs: Path, file: str) -> None:
    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        _die_after(patch, cut / file, FILES[file])
        with pytest.raises(DiedError):
            train(cut, {"train.epochs": 2})
    assert (cut / file).exists()
    assert (cut / "run.json").exists() == (file == "run.json")
    result = train(cut, {"train.epochs": 2})
    has_checkpoint = FILES[file] > 0
    unfinished = "resumed" if has_checkpoint else "trained"
    assert result.status == ("complete" if file == "run.json" else unfinished)
    assert_same(two_epochs, cut)
    assert {path.name for path in cut.iterdir()} == {path.name for path in two_epochs.iterdir()}


@pytest.mark.parametrize(
    "damage", ["truncated", "few bytes", "empty", "changed byte", "directory", "name"]
)
def test_damaged_checkpoint_is_replaced_by_the_one_before(
    train: Train, cut_off: Callable[..., None], tmp_path: Path, damage: str
) -> None:
    changes = {"train.epochs": 3}
    train(tmp_path / "whole", changes)
    cut_off(tmp_path / "cut", changes, epoch=2)
    last = RunDir(tmp_path / "cut").last_checkpoint
    damage_file(last, damage)
    messages: list[str] = []
    result = train(tmp_path / "cut", changes, on_message=messages.append)
    assert result.status == "resumed"
    assert any(str(last) in text and "damaged" in text for text in messages)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_damaged_checkpoint_does_not_replace_the_one_before(
    train: Train, cut_off: Callable[..., None], tmp_path: Path
) -> None:
    changes = {"train.epochs": 3}
    folder = RunDir(tmp_path / "cut")
    for _ in range(2):  # twice in a row
        cut_off(folder.path, changes, epoch=2)
        damage_file(folder.last_checkpoint, "truncated")
        assert folder.previous_checkpoint == folder.find_checkpoint()
        assert not folder.last_checkpoint.exists()


@pytest.mark.parametrize("damage", ["missing", "few bytes"])
def test_damaged_weights_of_the_best_epoch_are_an_error_before_training(
    train: Train, cut_off: Callable[..., None], tmp_path: Path, damage: str
) -> None:
    cut_off(tmp_path / "cut", {"train.epochs": 2}, epoch=1)
    best = RunDir(tmp_path / "cut").best_weights
    best.unlink() if damage == "missing" else damage_file(best, damage)
    with raises("checkpoint-invalid", key="train.run", file=best):
        train(tmp_path / "cut", {"train.epochs": 2})


@pytest.mark.parametrize("damage", ["missing", "truncated", "other epoch"])
def test_best_epoch_is_validated_again_without_its_validation(
    train: Train, cut_off: Callable[..., None], tmp_path: Path, damage: str
) -> None:
    cut_off(tmp_path / "cut", {"train.epochs": 2}, epoch=1)
    kept = RunDir(tmp_path / "cut").best_validation
    loaded = Evaluation.load(kept)
    assert loaded is not None and loaded[0] == 0
    with pytest.MonkeyPatch.context() as patch:  # the second epoch is not the best
        patch.setattr(Checkpointer, "best_epoch", 0)
        if damage == "missing":
            kept.unlink()
        elif damage == "truncated":
            damage_file(kept, damage)
        else:
            loaded[1].save(kept, epoch=1)
        messages: list[str] = []
        result = train(tmp_path / "cut", {"train.epochs": 2}, on_message=messages.append)
    assert "evaluating the best epoch on the validation windows" in messages
    assert result.metrics == loaded[1].metrics


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.last_checkpoint.parent.mkdir()
    torch.save({"weight": torch.zeros(2)}, folder.last_checkpoint)
    with raises("checkpoint-invalid", file=folder.last_checkpoint):
        folder.find_checkpoint()


def test_damaged_checkpoints_are_an_error(
    train: Train, cut_off: Callable[..., None], tmp_path: Path
) -> None:
    changes = {"train.epochs": 3}
    cut_off(tmp_path / "cut", changes, epoch=2)
    folder = RunDir(tmp_path / "cut")
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        damage_file(path, "truncated")
    with raises("checkpoint-invalid", key="train.run", file=folder.last_checkpoint):
        train(tmp_path / "cut", changes)


def damage_file(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    if damage == "changed byte":
        data[len(data) // 2] ^= 255
    directory = data.rfind(b"PK\1\2")  # the entry of the last file of the archive
    if damage == "directory":
        data[directory + 10] = 99  # an unknown compression
    if damage == "name":
        data[directory + 46] ^= 1
    sizes = {"truncated": len(data) // 2, "few bytes": 7, "empty": 0}
    path.write_bytes(data[: sizes.get(damage, len(data))])


def test_another_recipe_may_use_the_folder_before_the_first_epoch_is_complete(
    train: Train, cut_off: Callable[..., None], tmp_path: Path
) -> None:
    cut_off(tmp_path / "run", {"train.epochs": 2}, epoch=0)
    assert train(tmp_path / "run", {"train.epochs": 1}).status == "trained"


def test_killed_after_the_epoch_that_stops_early(train: Train, tmp_path: Path) -> None:
    changes = {"train.epochs": 4, "train.patience": 1, "train.lr": 1e-12}
    train(tmp_path / "whole", changes)
    with pytest.MonkeyPatch.context() as patch:
        _die_after(patch, tmp_path / "cut" / "checkpoint" / "last.ckpt", 1)
        with pytest.raises(DiedError):
            train(tmp_path / "cut", changes)
    train(tmp_path / "cut", changes)
    assert len(history(tmp_path / "whole")) == 2
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.fixture(scope="module")
def two_epochs(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An uninterrupted training of two epochs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(parse_recipe(tiny_values({"train.epochs": 2})), run=run)
    return run


def _die_after(patch: pytest.MonkeyPatch, path: Path, epoch: int) -> None:
    """Kill the training right after `path` was written in `epoch` or later."""
    replace, save, start = Path.replace, Trainer.save_checkpoint, Checkpointer.on_train_epoch_start
    now = [0]

    def started(self: Checkpointer, trainer: Trainer, module: Any) -> None:
        now[0] = trainer.current_epoch
        start(self, trainer, module)

    def replaced(self: Path, target: Any) -> None:
        replace(self, target)
        if now[0] >= epoch and target == path:
            raise DiedError

    def saved(self: Trainer, target: Any, *args: Any, **kwargs: Any) -> None:
        save(self, target, *args, **kwargs)
        if now[0] >= epoch and target == path:
            raise DiedError

    patch.setattr(Checkpointer, "on_train_epoch_start", started)
    patch.setattr(Path, "replace", replaced)
    patch.setattr(Trainer, "save_checkpoint", saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="est"),
        pytest.param({"train.workers": 2}, id="workers"),
        pytest.param({"method": LORA}, id="lora-dropout"),
    ],
)
def test_command_resumes_after_sigkill(
    train: Train,
    geotune: Callable[..., tuple[int, str, str]],
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    """The command is killed in its second epoch or later."""
    changes = {**changes, "train.epochs": 8, "data.samples": 40}
    recipe, run = tiny_recipe(changes), tmp_path / "run"
    last = RunDir(run).last_checkpoint
    command = str(Path(sys.executable).parent / "geotune")
    process = subprocess.Popen([command, "fit", str(recipe)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 900  # imports can take minutes on a busy machine
        while not last.exists():
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)  # into the next epoch
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "run.json").exists()
    assert 1 <= len(history(run)) < 8

    code, _, err = geotune("fit", recipe)
    assert code == 0, err
    assert f"resuming from {last}" in err
    train(tmp_path / "whole", changes)
    assert len(history(run)) == 8
    assert_same(tmp_path / "whole", run)
