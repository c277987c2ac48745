"""`train.precision` of a run: resolved once, saved, and used afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import geotune
from geotune.api.budget_search import with_changes
from geotune.api.fitting import FitResult
from geotune.api.planning import plan_to_dict
from geotune.config import Recipe, load_recipe
from geotune.training import evaluate
from geotune.utils.precision import FULL, MIXED, PrecisionChoice
from helpers.errors import raises

Train = Callable[..., FitResult]
AUTO = {"train.precision": "auto", "train.epochs": 2}
SLOW = "bf16-mixed is 146x slower than 32-true on this CPU"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what `auto` chooses from now on, and the slowdown of bf16."""

    def simulate(choice: str | None, factor: float = 0.7) -> None:
        def choose(device: str, **_: Any) -> PrecisionChoice:
            assert choice is not None, "chosen again"
            return PrecisionChoice(choice, "simulated")

        monkeypatch.setattr("geotune.api.environment.choose_precision", choose)
        monkeypatch.setattr("geotune.utils.precision.bf16_factor", lambda: factor)

    return simulate


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions of evaluations, in order."""
    used: list[str] = []
    autocast = evaluate.autocast

    def recording(device: torch.device, precision: str) -> torch.autocast:
        used.append(precision)
        return autocast(device, precision)

    monkeypatch.setattr(evaluate, "autocast", recording)
    return used


def saved(run: Path) -> set[str]:
    """The precisions in the recipe and in the summary of a run."""
    summary = json.loads((run / "run.json").read_text())
    return {str(load_recipe(run / "recipe.yaml")[0].train.precision), summary["precision"]}


@pytest.mark.parametrize("choice", [FULL, MIXED])
def test_auto_is_resolved_once_and_saved(
    train: Train, machine: Callable[..., None], tmp_path: Path, choice: str
) -> None:
    run = tmp_path / "run"
    machine(choice)
    messages: list[str] = []
    note = f"train.precision: {choice} (auto; simulated)"
    result = train(run, AUTO, on_message=messages.append)
    assert f"note: {note}" in messages and note in result.notes
    assert saved(run) == {choice} and not (run / "asked.yaml").exists()
    machine(None)
    assert train(run, AUTO).status == "complete"
    assert train(run, {**AUTO, "train.precision": choice}).status == "complete"
    other = MIXED if choice == FULL else FULL
    with raises("run-exists", mentions=[f"train.precision: {choice} -> {other}"]):
        train(run, {**AUTO, "train.precision": other})
    machine(other)
    train(run, AUTO, overwrite=True)
    assert saved(run) == {other}


def test_a_resumed_run_keeps_its_precision(
    train: Train, cut_off: Callable[..., None], machine: Callable[..., None], tmp_path: Path
) -> None:
    machine(MIXED)
    train(tmp_path / "whole", AUTO)
    cut_off(tmp_path / "cut", AUTO, epoch=1)
    machine(None, factor=146)
    result = train(tmp_path / "cut", AUTO)
    assert result.status == "resumed" and saved(tmp_path / "cut") == {MIXED}
    assert "train.precision: bf16-mixed (auto; chosen when the run started)" in result.notes
    assert next(note for note in result.notes if SLOW in note).endswith("use --overwrite")
    tensors = [(tmp_path / run / "adapter.safetensors").read_bytes() for run in ("whole", "cut")]
    assert tensors[0] == tensors[1]


def test_a_recipe_changed_for_its_budget_keeps_its_precision(
    train: Train, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def halved(recipe: Recipe, *_: Any) -> tuple[Recipe, int, list[str]]:
        return with_changes(recipe, {"train.accumulate_steps": 2}), 1, ["in two micro-batches"]

    monkeypatch.setattr("geotune.api.planning.fit_to_budget", halved)
    run = tmp_path / "run"
    changes = {**AUTO, "train.epochs": 1, "train.memory_budget": "1GB"}
    machine(MIXED)
    notes = ["train.precision: bf16-mixed (auto; simulated)", "in two micro-batches"]
    assert train(run, changes).notes[:2] == notes
    machine(None)
    assert (run / "asked.yaml").is_file() and train(run, changes).status == "complete"
    assert saved(run) == {MIXED}


def test_a_slow_precision_gives_a_warning_with_the_factor(
    train: Train,
    machine: Callable[..., None],
    tiny_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    changes = {"train.precision": MIXED, "train.epochs": 1}
    machine(None, factor=146)
    result = train(tmp_path / "slow", changes)
    note = f"{SLOW} (measured on one small convolution); use train.precision=auto"
    assert note in result.notes and saved(tmp_path / "slow") == {MIXED}
    assert note in geotune.plan(tiny_values(changes)).notes
    machine(None, factor=0.7)
    assert not any("slower" in note for note in train(tmp_path / "fast", changes).notes)


def test_a_plan_states_its_precision(
    machine: Callable[..., None], tiny_values: Callable[..., dict[str, Any]]
) -> None:
    machine(MIXED)
    planned = geotune.plan(tiny_values(AUTO))
    assert plan_to_dict(planned)["precision"] == MIXED
    assert "train.precision: bf16-mixed (auto; simulated)" in planned.notes
    machine(None)
    explicit = geotune.plan(tiny_values({"train.precision": MIXED}))
    assert planned.prediction.cpu == explicit.prediction.cpu
    assert geotune.plan(tiny_values()).precision == FULL


def test_the_test_uses_the_precision_of_the_run_unless_it_is_slow(
    train: Train, machine: Callable[..., None], computed: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    machine(MIXED)
    train(run, {**AUTO, "train.epochs": 1})
    computed.clear()
    messages: list[str] = []
    geotune.test(run, on_message=messages.append)
    assert set(computed) == {MIXED} and messages == []

    machine(None, factor=146)  # the training machine was faster
    computed.clear()
    geotune.test(run, on_message=messages.append)
    assert set(computed) == {FULL}
    assert len(messages) == 1 and SLOW in messages[0]


def test_a_cache_is_computed_in_the_resolved_precision(
    machine: Callable[..., None], tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    machine(MIXED)
    messages: list[str] = []
    values = tiny_values({**AUTO, "train.cache_folder": str(tmp_path / "cache")})
    result = geotune.cache(values, on_message=messages.append)
    assert "note: train.precision: bf16-mixed (auto; simulated)" in messages
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["computed_in"] == "torch.bfloat16"
