"""Files of a submission to GEO-Bench-2's leaderboard, checked by its rules."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.bench.grid import expand
from geotune.bench.leaderboard import check_tasks, write_submission
from geotune.bench.suite import read_suite
from geotune.config import load_recipe
from geotune.datasets.registry import get_dataset_info
from helpers.errors import raises

Write = Callable[..., Path]
ROOT = Path(__file__).parents[2]
TEXT = (
    "dataset", "Metric", "experiment_name", "partition name", "backbone", "decoder",
    "batch_size_selection", "frozen_or_full_ft",
)  # fmt: skip
WHOLE = ("early_stop_patience", "n_trials", "Seed", "data_percentages", "batch_size")
NUMBERS = ("weight_decay", "lr", "test metric")
KEYS = {
    "Paper Link": str,
    "Code Repository Link ": str,
    "License": str,
    "Number of HPO trials": str,
    "Additional information about submission": str,
    "Comments on new models in submission": str,
    "New model info": list,
}
"""Of the leaderboard's `utils/constants.py`."""


def row(lr: float, miou: float) -> dict[str, Any]:
    metrics = {"miou": miou}
    return {
        "error": None,
        "metrics": metrics,
        "train.lr": lr,
        "cost": {"trained_parameters": 1_530_000},
    }


@pytest.fixture
def written(suite: Write, tmp_path: Path) -> tuple[list[dict[str, str]], dict[str, Any], list[str]]:
    path = suite(
        {"train.patience": 4},
        grid={"method.kind": ["full", "est", "frozen"]},
        seeds=[0, 1, 2, 3, 4],
        search={"key": "train.lr", "low": 1e-4, "high": 1e-2, "trials": 16},
        baselines=None,
        leaderboard={"datasets": {"tiny": "burn_scars"}, "licence": "MIT"},
    )
    read = read_suite(path)
    specs, _ = expand(read)
    rows: list[Any] = [row(1e-3, 0.01 * i) for i in range(len(specs))]
    rows[-1] = {"error": "failed"}
    notes = write_submission(read, specs, rows, tmp_path / "out")
    lines = []
    for kind in ("full_ft", "frozen"):
        with (tmp_path / "out" / kind / "results_and_parameters.csv").open(newline="") as file:
            lines += [line for line in csv.DictReader(file)]
            assert {line["frozen_or_full_ft"] for line in lines[-5:]} == {kind}
    return lines, json.loads((tmp_path / "out/frozen/additional_info.json").read_text()), notes


def test_rows_have_the_columns_and_types_that_the_leaderboard_requires(
    written: tuple[list[dict[str, str]], dict[str, Any], list[str]],
) -> None:
    lines, _, notes = written
    assert len(lines) == 14
    for line in lines:
        assert all(line[column] for column in (*TEXT, "partition_name"))
        assert all(line[column].isdigit() for column in WHOLE)
        assert all(float(line[column]) >= 0 for column in NUMBERS)
    assert notes == ["leaderboard: test_vit (frozen) on burn_scars has 4 runs, expected 5 seeds"]
    first, est, last = lines[0], lines[5], lines[-1]
    assert (first["backbone"], first["frozen_or_full_ft"]) == ("test_vit", "full_ft")
    assert (est["backbone"], est["frozen_or_full_ft"]) == ("test_vit+est", "frozen")
    assert (last["backbone"], last["frozen_or_full_ft"]) == ("test_vit", "frozen")
    assert (est["Metric"], float(est["test metric"])) == ("Multiclass_Jaccard_Index", 0.05)
    assert (est["n_trials"], est["early_stop_patience"], est["lr"]) == ("16", "4", "0.001")
    assert [line["Seed"] for line in lines[5:10]] == ["0", "1", "2", "3", "4"]
    assert est["decoder"] == "linear" and est["data_percentages"] == "100"


def test_info_has_the_keys_that_the_leaderboard_requires(
    written: tuple[list[dict[str, str]], dict[str, Any], list[str]],
) -> None:
    _, info, _ = written
    assert {key: type(value) for key, value in info.items()} == KEYS
    assert info["License"] == "MIT" and info["Number of HPO trials"] == "16"
    assert info["New model info"][0] == {
        "model_display_name": "test_vit+est",
        "model_size": "1.53M",
        "unique_backbone_key": "test_vit+est",
    }


def test_tasks_that_the_leaderboard_lacks_are_refused(suite: Write) -> None:
    path = suite(
        {"task": {"kind": "density", "objects": "tree"}},
        leaderboard={"datasets": {"tiny": "burn_scars"}},
        baselines=None,
    )
    read = read_suite(path)
    with raises("suite-invalid", key="leaderboard.datasets", mentions=["tiny", "density"]):
        check_tasks(read, expand(read)[0])


def test_unknown_recipe_is_refused(suite: Write) -> None:
    with raises("recipe-invalid", mentions=["leaderboard.datasets.tny", "tiny?"]):
        read_suite(suite(leaderboard={"datasets": {"tny": "burn_scars"}}))


def test_recipes_of_the_benchmark_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = read_suite(Path("recipes/geobench2/suite.yaml"))
    assert read.leaderboard is not None
    assert list(read.leaderboard.datasets) == list(read.recipes)
    assert {f"{path.stem}" for path in Path("recipes/geobench2").glob("*.yaml")} == {
        *read.recipes,
        "suite",
    }
    specs, _ = expand(read.model_copy(update={"seeds": [0]}))
    assert len(specs) == 16
    for name in read.recipes:
        recipe, _ = load_recipe(Path(f"recipes/geobench2/{name}.yaml"))
        bands = recipe.backbone.bands
        assert isinstance(bands, tuple)
        if recipe.data.kind == "named":
            assert set(bands) <= set(get_dataset_info(recipe.data.name).bands)
        else:
            assert set(bands) <= set(recipe.data.bands or ())
