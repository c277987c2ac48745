"""The search for one number of a method, such as its learning rate, on the validation part."""

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
"""Trials before the sampler looks at what the earlier ones found."""


@dataclass(frozen=True)
class Objective:
    """By which metric runs are judged, and whether it shrinks as they get better."""

    metric: str
    lower: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        value: the best number.
        score: the metric on the validation part with it.
        trials: every number that was tried and its metric, None of a trial that failed.
    """

    key: str
    value: float
    score: float
    trials: list[tuple[float, float | None]]

    def as_row(self) -> dict[str, Any]:
        """As plain values."""
        return {"key": self.key, "value": self.value, "score": self.score, "trials": self.trials}


def search(
    search: Search,
    cell: RunSpec,
    goal: Objective,
    folder: Path,
    do: Callable[[RunSpec, Path], JobResult],
) -> SearchResult:
    """Try numbers on a cell, each as a run below `folder`, and say which was best.

    The sampler is seeded and is told of every trial in order, so that the same numbers come again
    where trials are done already; `do` does not do those again. Test data plays no part: trials are
    not tested. Raises `GeotuneError` where no trial gives a number.
    """
    optuna = load_optuna()
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(sampler=sampler, direction="minimize" if goal.lower else "maximize")
    trials: list[tuple[float, float | None]] = []
    error = None
    for number in range(search.trials):
        trial = study.ask()
        value = float(f"{trial.suggest_float(search.key, search.low, search.high, log=True):.3g}")
        run = folder / str(number)
        outcome = do(trial_of(search, cell, value), run)
        score = math.nan
        if outcome.error is None:
            found = RunDir(run).read_json("metrics")["val"][goal.metric]
            score = math.nan if found is None else float(found)
        else:
            error = outcome.error
        known = not math.isnan(score)
        trials.append((value, score if known else None))
        study.tell(
            trial, score if known else None, state=None if known else optuna.trial.TrialState.FAIL
        )
    rated = [(score, value) for value, score in trials if score is not None]
    if not rated:
        raise GeotuneError(
            f"no trial of the search for {search.key} gives a {goal.metric} on the validation part"
            + (f"; the last one: {error}" if error else "")
        )
    score, value = min(rated) if goal.lower else max(rated)
    return SearchResult(search.key, value, score, trials)


def trial_of(search: Search, cell: RunSpec, value: float) -> RunSpec:
    """The cell that tries a number."""
    short: Changes = {} if search.epochs is None else {"train.epochs": search.epochs}
    return with_best(search, cell, value).with_changes({**short, "train.seed": search.seed})


def with_best(search: Search, cell: RunSpec, value: float) -> RunSpec:
    """The cell with a number; where one rate served the backbone, too, it goes on to."""
    train = cell.recipe.train
    both = search.key == "train.lr" and train.backbone_lr == train.lr
    return cell.with_changes({search.key: value} | ({"train.backbone_lr": value} if both else {}))


def load_optuna() -> Any:
    """Optuna, without its messages. Raises `GeotuneError` where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise GeotuneError(
            "search: needs Optuna, which is not installed; pip install 'geotune[bench]', or leave "
            "search: out of the suite"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
