"""Files of a submission to the leaderboard of GEO-Bench-2 (arXiv 2511.15658).

Columns and keys are those that `utils/input_validation.py` of
github.com/The-AI-Alliance/GEO-Bench-2-Leaderboard requires, and `partition_name` of its results.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.bench.grid import RunSpec
from geotune.bench.results import Row
from geotune.bench.suite import LeaderboardOptions, Suite
from geotune.errors import RecipeError
from geotune.utils.atomic import write_atomically

SEEDS = 5
"""Runs of each backbone on each data set that the leaderboard requires."""
COLUMNS = (
    "backbone", "dataset", "Metric", "experiment_name", "batch_size_selection",
    "early_stop_patience", "n_trials", "Seed", "batch_size", "weight_decay", "lr", "test metric",
    "decoder", "frozen_or_full_ft", "partition_name", "partition name", "data_percentages",
)  # fmt: skip
METRICS: dict[str, tuple[str, str]] = {
    "segment": ("Multiclass_Jaccard_Index", "miou"),
    "classify": ("Overall_Accuracy", "accuracy"),
    "multilabel": ("Multilabel_F1_Score", "f1"),
    "detect": ("test_test_map", "ap"),
    "regress": ("RMSE", "rmse"),
}
"""Task to the leaderboard's name of its metric, and geotune's."""


def write_submission(
    suite: Suite, specs: Sequence[RunSpec], rows: Sequence[Row | None], folder: Path
) -> list[str]:
    """Write `results_and_parameters.csv` and `additional_info.json` of the finished runs.

    The leaderboard takes a folder for fully fine-tuned or for frozen, so each has its own below
    `folder`: `full_ft` and `frozen`. A method other than `full` and `frozen` makes a model of its
    own, `<backbone>+<method>`. Returns notes on what the leaderboard would reject.
    """
    options = suite.leaderboard
    assert options is not None
    lines: list[dict[str, Any]] = []
    sizes: dict[str, dict[str, int]] = {}
    for spec, row in zip(specs, rows, strict=True):
        dataset = options.datasets.get(str(spec.labels["recipe"]))
        if row is None or row["error"] is not None or dataset is None:
            continue
        line = _line(suite, spec, row, dataset)
        lines.append(line)
        parameters = row["cost"]["trained_parameters"]
        of_kind = sizes.setdefault(line["frozen_or_full_ft"], {})
        of_kind[line["backbone"]] = max(parameters, of_kind.get(line["backbone"], 0))
    for kind, models in sizes.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for line in lines if line["frozen_or_full_ft"] == kind)
        write_atomically(folder / kind / "results_and_parameters.csv", text.getvalue().encode())
        info = json.dumps(_info(suite, options, models), indent=2, ensure_ascii=False)
        write_atomically(folder / kind / "additional_info.json", f"{info}\n".encode())
    return _notes(lines)


def check_tasks(suite: Suite, specs: Sequence[RunSpec]) -> None:
    """Raise `RecipeError` for a recipe whose task the leaderboard does not have."""
    named = {} if suite.leaderboard is None else suite.leaderboard.datasets
    for spec in specs:
        recipe = spec.labels["recipe"]
        if recipe in named and spec.recipe.task.kind not in METRICS:
            raise RecipeError(
                f"leaderboard.datasets: {recipe} has task.kind {spec.recipe.task.kind}; the "
                f"leaderboard has {', '.join(METRICS)}; remove it",
                code="suite-invalid",
                key="leaderboard.datasets",
            )


def _line(suite: Suite, spec: RunSpec, row: Row, dataset: str) -> dict[str, Any]:
    recipe = spec.recipe
    kind, task = recipe.method.kind, recipe.task
    name, metric = METRICS["multilabel" if getattr(task, "multilabel", False) else task.kind]
    backbone = recipe.backbone.name.partition("/")[2]
    searched = suite.search

    def value(key: str, default: float) -> float:
        return float(row.get(key, default))

    return {
        "backbone": backbone if kind in ("full", "frozen") else f"{backbone}+{kind}",
        "dataset": dataset,
        "Metric": name,
        "experiment_name": f"geotune_{kind}_{backbone}",
        "batch_size_selection": "optimized"
        if searched is not None and searched.key == "train.batch_size"
        else "fixed",
        "early_stop_patience": recipe.train.patience or recipe.train.epochs,
        "n_trials": 0 if searched is None else searched.trials,
        "Seed": recipe.train.seed,
        "batch_size": round(value("train.batch_size", recipe.train.batch_size)),
        "weight_decay": value("train.weight_decay", recipe.train.weight_decay),
        "lr": value("train.lr", recipe.train.lr),
        "test metric": row["metrics"][metric],
        "decoder": recipe.decoder.kind,
        "frozen_or_full_ft": "full_ft" if kind == "full" else "frozen",
        "partition_name": "default",
        "partition name": f"{100 * recipe.data.fraction:g}%",
        "data_percentages": round(100 * recipe.data.fraction),
    }


def _info(suite: Suite, options: LeaderboardOptions, sizes: Mapping[str, int]) -> dict[str, Any]:
    trials = 0 if suite.search is None else suite.search.trials
    return {
        "Paper Link": options.paper,
        "Code Repository Link ": options.code,  # the space is part of the key
        "License": options.licence,
        "Number of HPO trials": str(trials),
        "Additional information about submission": options.information,
        "Comments on new models in submission": options.comments,
        "New model info": [
            {
                "model_display_name": name,
                "model_size": f"{size / 1e6:.3g}M",
                "unique_backbone_key": name,
            }
            for name, size in sizes.items()
        ],
    }


def _notes(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    seeds = Counter(
        (line["backbone"], line["dataset"], line["frozen_or_full_ft"]) for line in lines
    )
    errors = {line["dataset"] for line in lines if line["Metric"] == "RMSE"}
    return [
        f"leaderboard: {dataset} has the RMSE as measured; it expects a score that is higher if "
        "better: see scale_rmse in its normalization_example.ipynb"
        for dataset in sorted(errors)
    ] + [
        f"leaderboard: {backbone} ({kind}) on {dataset} has {count} runs, expected {SEEDS} seeds"
        for (backbone, dataset, kind), count in seeds.items()
        if count != SEEDS
    ]
