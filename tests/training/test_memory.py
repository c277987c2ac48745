"""Memory that runs out in a training, and what a training tells of its memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geotune.api.fitting import FitResult
from geotune.config import load_recipe
from geotune.errors import GeotuneError
from geotune.memory.oom import is_oom
from geotune.model import Model

Run = Callable[..., FitResult]
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Memory runs out in the backward pass of more than so many windows, after so many passes.

    Gives the windows of each pass of the training so far.
    """

    def limit(windows: int, error: BaseException = ERRORS[0], after: int = 0) -> list[int]:
        forward, passes = Model.forward, list[int]()

        def scarce(self: Model, images: torch.Tensor, **others: Any) -> torch.Tensor:
            logits = forward(self, images, **others)
            if type(images) is torch.Tensor and self.training:
                passes.append(len(images))
                if len(images) > windows and len(passes) > after:

                    def fail(_: torch.Tensor) -> None:
                        raise error

                    logits.register_hook(fail)
            return logits

        monkeypatch.setattr(Model, "forward", scarce)
        return passes

    return limit


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_says_that_memory_ran_out(error: BaseException) -> None:
    assert is_oom(error)
    assert not is_oom(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize("error", ERRORS[:1] + ERRORS[2:3], ids=["gpu", "cpu"])
def test_a_step_is_done_again_in_smaller_parts(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]], error: BaseException
) -> None:
    """The result is that of a training which was asked for so small ones."""
    small = train(tmp_path / "small", {"train.accumulate_steps": 4, "train.epochs": 2})
    passes = little_memory(1, error)
    said: list[str] = []
    result = train(tmp_path / "run", {"train.epochs": 2}, on_message=said.append)
    assert result.status == "trained"
    told = [line for line in said if "memory ran out" in line]
    assert [line.count("train.accumulate_steps=2") for line in told] == [1, 0]
    assert "train.accumulate_steps=4" in told[1] and "batch of 4 stays" in told[1]
    assert "from this step on" in told[0]
    assert sum("memory ran out" in note for note in result.notes) == 2
    assert passes[:3] == [4, 2, 1] and set(passes[3:]) == {1}
    tensors = [(run / "adapter.safetensors").read_bytes() for run in (small.run, result.run)]
    assert tensors[0] == tensors[1]
    assert small.metrics == result.metrics
    predicted = [done.summary["peak_memory"]["predicted_bytes"] for done in (small, result)]
    assert predicted[0] == predicted[1]
    kept = load_recipe(tmp_path / "run" / "recipe.yaml")[0].train
    assert (kept.batch_size, kept.accumulate_steps) == (4, 4)
    assert load_recipe(tmp_path / "run" / "asked.yaml")[0].train.accumulate_steps == 1
    assert train(tmp_path / "run", {"train.epochs": 2}).status == "nothing"


@pytest.mark.parametrize("method", ["est", "lora"])
def test_it_goes_on_from_the_last_step(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]], method: str
) -> None:
    """In the second of two steps of the second epoch; and within a batch, after its first part.

    With a loss that is a mean over as many pixels in each part, and without batch norm or dropout,
    only the order of sums differs from a training that had memory enough.
    """
    changes = {"method": {"kind": method, "stem_width": 0}, "task.loss": "ce", "train.epochs": 3}
    enough = train(tmp_path / "enough", changes)
    passes = little_memory(2, after=3)
    said: list[str] = []
    result = train(tmp_path / "run", changes, on_message=said.append)
    assert result.status == "trained"
    assert passes[:7] == [4, 4, 4, 4, 2, 2, 2]
    assert sum("memory ran out" in line for line in said) == 1
    histories = []
    for run in (enough.run, result.run):
        with (run / "history.csv").open(encoding="utf-8", newline="") as file:
            histories.append([float(row["train/loss"]) for row in csv.DictReader(file)])
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)
    tensors = [load_file(run / "adapter.safetensors") for run in (enough.run, result.run)]
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], rtol=1e-3, atol=1e-4)


def test_what_a_failed_attempt_did_is_undone(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    """Batch norm's statistics, gradients and random numbers: the second part fails, and only once.

    The step is then done again in parts of one window, as a training does that was asked for them.
    """
    changes = {"decoder.kind": "fcn", "train.epochs": 1, "data.samples": 4}
    changes |= {"method": {"kind": "lora", "dropout": 0.3, "stem_width": 0}}
    small = train(tmp_path / "small", {**changes, "train.accumulate_steps": 4})
    little_memory(1, after=1)
    result = train(tmp_path / "run", {**changes, "train.accumulate_steps": 2})
    tensors = [(run / "adapter.safetensors").read_bytes() for run in (small.run, result.run)]
    assert tensors[0] == tensors[1]


def test_validation_is_done_again_too(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, failed = Model.forward, []

    def scarce(self: Model, images: torch.Tensor, **others: Any) -> torch.Tensor:
        if type(images) is torch.Tensor and not torch.is_grad_enabled() and len(images) > 2:
            failed.append(len(images))
            raise ERRORS[0]
        return forward(self, images, **others)

    enough = train(tmp_path / "enough")
    monkeypatch.setattr(Model, "forward", scarce)
    result = train(tmp_path / "run")
    assert failed == [4]
    assert result.metrics["miou"] == pytest.approx(enough.metrics["miou"], abs=0.02)


def test_a_training_cut_off_after_it_goes_on_with_the_same_command(
    train: Run,
    cut_off: Callable[..., None],
    tmp_path: Path,
    little_memory: Callable[..., list[int]],
) -> None:
    changes = {"train.epochs": 2}
    little_memory(2)
    whole = train(tmp_path / "whole", changes)
    cut_off(tmp_path / "run", changes, epoch=1)
    said: list[str] = []
    result = train(tmp_path / "run", changes, on_message=said.append)
    assert result.status == "went on" and not any("memory ran out" in line for line in said)
    files = [run / "adapter.safetensors" for run in (whole.run, result.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_it_ends_where_one_window_is_too_much(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    little_memory(0)
    with pytest.raises(GeotuneError, match=r"1 windows at once.*no smaller.*plan --budget"):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_other_errors_are_not_taken_for_it(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    little_memory(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(tmp_path / "run")


def test_following_a_step_changes_nothing(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = train(tmp_path / "seen", {"train.epochs": 1})
    assert seen.summary["peak_memory"]["tracked_bytes"] > 0
    monkeypatch.setattr("geotune.training.memory_callback.MemoryTracker.__torch_dispatch__", refuse)
    monkeypatch.setattr(
        "geotune.training.memory_callback.StepMemoryCallback.on_train_batch_start", nothing
    )
    monkeypatch.setattr("geotune.training.trainer.estimated_step_bytes", nothing)
    unseen = train(tmp_path / "unseen", {"train.epochs": 1})
    memory = json.loads((unseen.run / "run.json").read_text())["peak_memory"]
    assert memory["tracked_bytes"] is None and memory["predicted_bytes"] is None
    files = [run / "adapter.safetensors" for run in (seen.run, unseen.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("this training is not followed")


def nothing(*_: Any, **__: Any) -> None:
    """Stands for what is left out."""
