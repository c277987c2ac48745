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
from geotune.utils.metric_names import metric_name

RANDOM_TRIALS = 3
"""Random trials before the sampler uses earlier results."""

Proposals = Callable[[], tuple[float, Callable[[float | None], None]]]
"""Gives the value of the next trial, and a function to tell its score; None if it failed."""


@dataclass(frozen=True)
class Objective:
    """The metric that ranks runs; `lower`: whether lower values are better."""

    metric: str
    lower: bool

    @property
    def name(self) -> str:
        """The metric as people read it."""
        return metric_name(self.metric)


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
    """Try `search.values`, or what Optuna's TPE sampler proposes; each trial is a run in `folder`.

    The seeded sampler receives the trials in order, so a resumed search proposes the same values,
    and `run_trial` skips finished ones. Trials are not tested: test data is not used. Of trials
    with equal metrics, as where none has learned to predict a rare class yet, the one with the
    lowest validation loss is the best. Raises `GeotuneError` if no trial gives a metric.
    """
    propose = _listed(search) if search.values else _sampled(search, objective)
    trials: list[tuple[float, float | None]] = []
    losses: list[float] = []
    error = None
    for number in range(search.trials):
        value, tell = propose()
        run = folder / str(number)
        result = run_trial(trial_of(search, spec, value), run)
        score = math.nan
        if result.error is None:
            metric = RunDir(run).read_json("metrics")["val"][objective.metric]
            score = math.nan if metric is None else float(metric)
        else:
            error = result.error
        trials.append((value, None if math.isnan(score) else score))
        losses.append(_validation_loss(RunDir(run)))
        tell(trials[-1][1])
    sign = 1 if objective.lower else -1
    rated = [
        (sign * score, loss, value, score)
        for (value, score), loss in zip(trials, losses, strict=True)
        if score is not None
    ]
    if not rated:
        raise GeotuneError(
            f"search for {search.key}: no trial gave a validation {objective.metric}"
            + (f"; last error: {error}" if error else ""),
            code="search-failed",
            key="search",
        )
    *_, value, score = min(rated)
    return SearchResult(search.key, value, score, trials)


def _listed(search: Search) -> Proposals:
    values = iter(search.values)
    return lambda: (next(values), lambda score: None)


def _sampled(search: Search, objective: Objective) -> Proposals:
    optuna = load_optuna()
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(
        sampler=sampler, direction="minimize" if objective.lower else "maximize"
    )
    low, high = search.bounds

    def propose() -> tuple[float, Callable[[float | None], None]]:
        trial = study.ask()
        value = float(f"{trial.suggest_float(search.key, low, high, log=True):.3g}")
        failed = optuna.trial.TrialState.FAIL
        return value, lambda score: study.tell(
            trial, score, state=failed if score is None else None
        )

    return propose


def _validation_loss(run: RunDir) -> float:
    """The lowest validation loss of a run; infinity if it has none."""
    losses = [row.get("val/loss", math.nan) for row in run.read_history()]
    return min((loss for loss in losses if not math.isnan(loss)), default=math.inf)


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
