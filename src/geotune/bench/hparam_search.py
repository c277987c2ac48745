"""Search one hyperparameter of a method, such as its learning rate, on the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotune.bench.grid import RunSpec
from geotune.bench.local_executor import JobResult
from geotune.bench.suite import Changes, Search
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir

RANDOM_TRIALS = 3
"""Random trials before the sampler uses earlier results."""


@dataclass(frozen=True)
class Objective:
    """The metric that ranks runs; `lower`: whether lower values are better."""

    metric: str
    lower: bool


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        value: the best value.
        score: its metric on the validation split.
        trials: each value tried with its metric; None for a failed trial.
    """

    key: str
    value: float
    score: float
    trials: list[tuple[float, float | None]]

    def as_row(self) -> dict[str, Any]:
        """As JSON-compatible values."""
        return {"key": self.key, "value": self.value, "score": self.score, "trials": self.trials}


def search(
    search: Search,
    spec: RunSpec,
    objective: Objective,
    folder: Path,
    run_trial: Callable[[RunSpec, Path], JobResult],
) -> SearchResult:
    """Search with Optuna's TPE sampler; each trial is a run below `folder`.

    The seeded sampler receives the trials in order, so a resumed search proposes the same values,
    and `run_trial` skips finished ones. Trials are not tested: test data is not used. Raises
    `GeotuneError` if no trial gives a metric.
    """
    optuna = load_optuna()
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(
        sampler=sampler, direction="minimize" if objective.lower else "maximize"
    )
    trials: list[tuple[float, float | None]] = []
    error = None
    for number in range(search.trials):
        trial = study.ask()
        value = float(f"{trial.suggest_float(search.key, search.low, search.high, log=True):.3g}")
        run = folder / str(number)
        result = run_trial(trial_of(search, spec, value), run)
        score = math.nan
        if result.error is None:
            metric = RunDir(run).read_json("metrics")["val"][objective.metric]
            score = math.nan if metric is None else float(metric)
        else:
            error = result.error
        finite = not math.isnan(score)
        trials.append((value, score if finite else None))
        study.tell(
            trial, score if finite else None, state=None if finite else optuna.trial.TrialState.FAIL
        )
    rated = [(score, value) for value, score in trials if score is not None]
    if not rated:
        raise GeotuneError(
            f"search for {search.key}: no trial gave a validation {objective.metric}"
            + (f"; last error: {error}" if error else ""),
            code="search-failed",
            key="search",
        )
    score, value = min(rated) if objective.lower else max(rated)
    return SearchResult(search.key, value, score, trials)


def trial_of(search: Search, spec: RunSpec, value: float) -> RunSpec:
    """The run of a trial."""
    short: Changes = {} if search.epochs is None else {"train.epochs": search.epochs}
    return with_best(search, spec, value).with_changes({**short, "train.seed": search.seed})


def with_best(search: Search, spec: RunSpec, value: float) -> RunSpec:
    """The run with a value; a `train.backbone_lr` that was equal to `train.lr` stays equal."""
    train = spec.recipe.train
    same_rate = search.key == "train.lr" and train.backbone_lr == train.lr
    return spec.with_changes(
        {search.key: value} | ({"train.backbone_lr": value} if same_rate else {})
    )


def load_optuna() -> Any:
    """Import Optuna and silence it. Raises `GeotuneError` if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise GeotuneError(
            "search: Optuna is not installed; pip install 'geotune[bench]', or remove search from "
            "the suite",
            code="dependency-missing",
            key="search",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
