"""Trainings that start from the tensors of an adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import geotune
from geotune.api.starting import start_from_adapter
from geotune.config import parse_recipe
from geotune.factory.build_data import build_data
from geotune.factory.build_model import build_training
from geotune.hub.download import adapter_source
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
