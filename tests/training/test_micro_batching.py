"""Training when memory runs out, and the memory that a training reports."""

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
from geotune.memory.oom import is_oom
from geotune.model import Model
from geotune.training.run_dir import RunDir
from helpers.errors import raises

Run = Callable[..., FitResult]
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


NONE = {"train.activation_checkpointing": "none"}
"""Not `auto`, which recomputes activations before it makes micro-batches smaller."""


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Simulate that memory runs out in the backward pass of more than `windows` windows.

    The first `after` passes succeed, or the first `failures` passes fail. Returns the list of the
    windows of each pass.
    """

    def limit(
        windows: int,
        error: BaseException = ERRORS[0],
        after: int = 0,
        failures: int = 0,
    ) -> list[int]:
        forward, passes = Model.forward, list[int]()

        def scarce(self: Model, images: torch.Tensor, **others: Any) -> torch.Tensor:
            logits = forward(self, images, **others)
            if type(images) is torch.Tensor and self.training:
                passes.append(len(images))
                if len(passes) <= failures or (len(images) > windows and len(passes) > after):

                    def fail(_: torch.Tensor) -> None:
                        raise error

                    logits.register_hook(fail)
            return logits

        monkeypatch.setattr(Model, "forward", scarce)
        return passes

    return limit


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_is_oom_recognises_errors_of_gpu_and_cpu(error: BaseException) -> None:
    assert is_oom(error)
    assert not is_oom(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize("error", ERRORS[:1] + ERRORS[2:3], ids=["gpu", "cpu"])
def test_step_is_retried_with_smaller_micro_batches(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]], error: BaseException
) -> None:
    """The result equals a training that requested the small micro-batches."""
    small = train(
        tmp_path / "small",
        {**NONE, "train.accumulate_steps": 4, "train.epochs": 2},
        estimate_memory=True,
    )
    passes = little_memory(1, error)
    messages: list[str] = []
    result = train(
        tmp_path / "run",
        {**NONE, "train.epochs": 2},
        on_message=messages.append,
        estimate_memory=True,
    )
    assert result.status == "trained"
    reports = [line for line in messages if "memory ran out" in line]
    assert [line.count("train.accumulate_steps=2") for line in reports] == [1, 0]
    assert "train.accumulate_steps=4" in reports[1] and "still 4 per batch" in reports[1]
    assert "from this step on" in reports[0]
    assert sum("memory ran out" in note for note in result.notes) == 2
    assert passes[:3] == [4, 2, 1] and set(passes[3:]) == {1}
    tensors = [(run / "adapter.safetensors").read_bytes() for run in (small.run, result.run)]
    assert tensors[0] == tensors[1]
    assert small.metrics == result.metrics
    predicted = [done.summary["peak_memory"]["predicted_bytes"] for done in (small, result)]
    assert predicted[0] == predicted[1]
    saved = load_recipe(tmp_path / "run" / "recipe.yaml")[0].train
    assert (saved.batch_size, saved.accumulate_steps) == (4, 4)
    assert load_recipe(tmp_path / "run" / "asked.yaml")[0].train.accumulate_steps == 1
    assert train(tmp_path / "run", {**NONE, "train.epochs": 2}).status == "complete"


@pytest.mark.parametrize("method", ["est", "lora"])
def test_retried_step_loses_nothing(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]], method: str
) -> None:
    """Memory runs out in the second step of the second epoch.

    With a loss that averages equally many pixels in each micro-batch, and without batch norm or
    dropout, only the order of summation differs from a training with enough memory.
    """
    changes = {"method": {"kind": method, "stem_width": 0}, "task.loss": "ce", "train.epochs": 3}
    changes |= NONE
    enough = train(tmp_path / "enough", changes)
    passes = little_memory(2, after=3)
    messages: list[str] = []
    result = train(tmp_path / "run", changes, on_message=messages.append)
    assert result.status == "trained"
    assert passes[:7] == [4, 4, 4, 4, 2, 2, 2]
    assert sum("memory ran out" in line for line in messages) == 1
    histories = []
    for run in (enough.run, result.run):
        with (run / "history.csv").open(encoding="utf-8", newline="") as file:
            histories.append([float(row["train/loss"]) for row in csv.DictReader(file)])
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)
    tensors = [load_file(run / "adapter.safetensors") for run in (enough.run, result.run)]
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], rtol=1e-3, atol=1e-4)


def test_failed_attempt_is_undone(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    """Batch norm statistics, gradients and random numbers: the second micro-batch fails once.

    The step is then retried in micro-batches of one window, as if they had been requested.
    """
    changes = {**NONE, "decoder.kind": "fcn", "train.epochs": 1, "data.samples": 4}
    changes |= {"method": {"kind": "lora", "dropout": 0.3, "stem_width": 0}}
    small = train(tmp_path / "small", {**changes, "train.accumulate_steps": 4})
    little_memory(1, after=1)
    result = train(tmp_path / "run", {**changes, "train.accumulate_steps": 2})
    tensors = [(run / "adapter.safetensors").read_bytes() for run in (small.run, result.run)]
    assert tensors[0] == tensors[1]


def test_validation_is_retried_with_smaller_micro_batches(
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


@pytest.mark.parametrize(
    ("method", "levels"),
    [
        pytest.param(
            {"kind": "lora", "dropout": 0.3, "stem_width": 4}, ["decoder", "all"], id="lora"
        ),
        pytest.param({"kind": "est", "stem_width": 4}, ["decoder"], id="est"),
    ],
)
def test_activations_are_recomputed_before_micro_batches_are_smaller(
    train: Run,
    cut_off: Callable[..., None],
    tmp_path: Path,
    little_memory: Callable[..., list[int]],
    method: dict[str, Any],
    levels: list[str],
) -> None:
    """The result is bit-identical, also with batch norm and dropout; the level is saved."""
    changes = {"method": method, "decoder.kind": "fcn", "train.epochs": 2, "data.samples": 4}
    enough = train(tmp_path / "enough", {**changes, **NONE}, estimate_memory=True)
    passes = little_memory(4, failures=len(levels))
    cut_off(tmp_path / "run", changes, epoch=1, batch=0)
    assert passes == [4] * (1 + len(levels))
    folder = RunDir(tmp_path / "run")
    assert load_recipe(folder.recipe)[0].train.activation_checkpointing == levels[-1]
    messages: list[str] = []
    result = train(folder.path, changes, on_message=messages.append, estimate_memory=True)
    assert result.status == "resumed" and not any("memory ran out" in line for line in messages)
    files = [run / "adapter.safetensors" for run in (enough.run, result.run)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert result.metrics == enough.metrics
    assert result.summary["activation_checkpointing"] == levels[-1]
    assert enough.summary["activation_checkpointing"] == "none"
    memory = [run.summary["peak_memory"]["predicted_bytes"] for run in (enough, result)]
    assert memory[1] < memory[0]
    assert not folder.requested_recipe.exists()
    assert train(folder.path, changes).status == "complete"


def test_micro_batches_become_smaller_if_recomputing_does_not_suffice(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    passes = little_memory(2)
    result = train(tmp_path / "run", {"train.epochs": 1})
    assert passes[:4] == [4, 4, 2, 2]
    notes = [note for note in result.notes if "memory ran out" in note]
    assert ["activation_checkpointing=decoder" in note for note in notes] == [True, False]
    assert "with the same results" in notes[0] and "train.accumulate_steps=2" in notes[1]
    saved, asked = (
        load_recipe(tmp_path / "run" / name)[0].train for name in ("recipe.yaml", "asked.yaml")
    )
    assert (saved.activation_checkpointing, saved.accumulate_steps) == ("decoder", 2)
    assert (asked.activation_checkpointing, asked.accumulate_steps) == ("decoder", 1)
    assert train(tmp_path / "run", {"train.epochs": 1}).status == "complete"


def test_estimate_above_the_free_memory_recomputes(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geotune.training.memory_adaptation.available_memory", lambda: 1)
    changes = {"train.epochs": 1, "method": {"kind": "lora"}}
    result = train(tmp_path / "run", changes, estimate_memory=True)
    assert result.summary["activation_checkpointing"] == "all"
    assert result.summary["peak_memory"]["predicted_bytes"] > 0
    assert sum("of memory are free; from this step on" in note for note in result.notes) == 2
    pinned = train(tmp_path / "pinned", {**changes, **NONE}, estimate_memory=True)
    assert pinned.summary["activation_checkpointing"] == "none"
    without = train(tmp_path / "without", changes)
    assert without.summary["activation_checkpointing"] == "none"


def test_training_interrupted_after_oom_resumes(
    train: Run,
    cut_off: Callable[..., None],
    tmp_path: Path,
    little_memory: Callable[..., list[int]],
) -> None:
    changes = {"train.epochs": 2}
    little_memory(2)
    whole = train(tmp_path / "whole", changes)
    cut_off(tmp_path / "run", changes, epoch=1)
    messages: list[str] = []
    result = train(tmp_path / "run", changes, on_message=messages.append)
    assert result.status == "resumed" and not any("memory ran out" in line for line in messages)
    files = [run / "adapter.safetensors" for run in (whole.run, result.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_oom_with_a_single_window_is_an_error(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    little_memory(0)
    with raises("out-of-memory", mentions=["1 windows", "geotune plan --budget"]):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_other_errors_are_not_retried(
    train: Run, tmp_path: Path, little_memory: Callable[..., list[int]]
) -> None:
    little_memory(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(tmp_path / "run")


def test_tracking_a_step_does_not_change_the_result(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked = train(tmp_path / "tracked", {"train.epochs": 1})
    assert tracked.summary["peak_memory"]["tracked_bytes"] > 0
    monkeypatch.setattr(
        "geotune.training.memory_callback.MemoryTracker.__torch_dispatch__", fail_if_called
    )
    monkeypatch.setattr(
        "geotune.training.memory_callback.StepMemoryCallback.on_train_batch_start", do_nothing
    )
    untracked = train(tmp_path / "untracked", {"train.epochs": 1})
    memory = json.loads((untracked.run / "run.json").read_text())["peak_memory"]
    assert memory["tracked_bytes"] is None and memory["predicted_bytes"] is None
    files = [run / "adapter.safetensors" for run in (tracked.run, untracked.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


def fail_if_called(*_: Any, **__: Any) -> None:
    raise AssertionError("this training is not tracked")


def do_nothing(*_: Any, **__: Any) -> None:
    """Replaces a function."""
