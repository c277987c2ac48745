"""Trainings that start from the tensors of an adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import geotune
from geotune.api.starting import start_from_adapter
from geotune.config import parse_recipe
from geotune.factory.build_data import build_data
from geotune.factory.build_model import build_training
from geotune.hub.download import adapter_source
from geotune.training.run_dir import RunDir
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]
LORA = {"kind": "lora", "rank": 2, "stem_width": 0}


@pytest.fixture
def run(tiny_values: Values, tmp_path: Path) -> Path:
    return geotune.fit(tiny_values({"method": LORA, "train.epochs": 1}), run=tmp_path / "run").run


def start(values: dict[str, Any], run: Path) -> str | None:
    recipe = parse_recipe(values)
    built = build_training(recipe, build_data(recipe).statistics)
    return start_from_adapter(built, recipe, adapter_source(run))


@pytest.mark.parametrize(
    ("changes", "key", "mentions"),
    [
        ({"method": {**LORA, "alpha": 64}}, "method.alpha", ["64"]),
        (
            {"method": {"kind": "peft", "tuner": "rslora", "rank": 2, "stem_width": 0}},
            "method.kind",
            ["lora -> peft"],
        ),
        ({"task.classes": ["water", "land"]}, "task.classes", ["'land', 'water'"]),
        ({"decoder": {"kind": "linear", "upsample": 2}}, "decoder.upsample", ["upsample"]),
    ],
)
def test_equal_tensors_of_another_model_are_refused(
    tiny_values: Values, run: Path, changes: dict[str, Any], key: str, mentions: list[str]
) -> None:
    """Names and shapes do not show a scale, or the order of the classes."""
    values = tiny_values({"method": LORA, **changes})
    with raises("adapter-mismatch", key=key, file=run, mentions=mentions):
        start(values, run)


def test_what_tensors_do_not_depend_on_may_differ(tiny_values: Values, run: Path) -> None:
    changes = {"method": {**LORA, "dropout": 0.2}, "task.loss": "dice", "train.lr": 1e-4}
    assert start(tiny_values(changes), run) is None


def test_another_normalisation_is_noted(tiny_values: Values, run: Path) -> None:
    note = start(tiny_values({"method": LORA, "data.split.train": ["a"]}), run)
    assert note is not None and "normalised with other values" in note


def test_the_start_is_used_unless_a_checkpoint_is_loaded(
    tiny_values: Values, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over an earlier run, and after a kill before the first checkpoint."""
    started = []

    def start_and_count(*args: Any) -> str | None:
        started.append(1)
        return start_from_adapter(*args)

    monkeypatch.setattr("geotune.api.train_workflow.start_from_adapter", start_and_count)
    values = tiny_values({"method": LORA, "train.epochs": 1, "train.start_from": str(run)})
    later = tmp_path / "later"
    geotune.fit(values, run=later)
    geotune.fit(values, run=later)  # complete
    assert len(started) == 1
    geotune.fit(values, run=later, overwrite=True)
    assert len(started) == 2
    for name in ("run.json", "checkpoint/last.ckpt", "checkpoint/previous.ckpt"):
        (later / name).unlink(missing_ok=True)
    assert RunDir(later).has_checkpoint  # the weights of an epoch whose checkpoint is missing
    geotune.fit(values, run=later)
    assert len(started) == 3


def test_training_scenes_in_the_test_split_are_refused(tiny_values: Values, tmp_path: Path) -> None:
    """Such as where a random split is drawn again, because scenes were added."""
    run = geotune.fit(tiny_values({"method": LORA, "train.epochs": 1}), run=tmp_path / "run").run
    recipe = run / "recipe.yaml"
    text = recipe.read_text()
    values = yaml.safe_load(text)
    values["data"]["split"] |= {"train": ["a"], "test": ["b", "d"]}
    recipe.write_text(yaml.safe_dump(values))
    with raises("split-changed", key="data.split", mentions=["b", "trained on"]):
        geotune.test(run)
    assert "test" not in json.loads((run / "metrics.json").read_text())
    recipe.write_text(text)
    messages: list[str] = []
    geotune.test(run, on_message=messages.append)
    assert not any("split differs" in message for message in messages)
