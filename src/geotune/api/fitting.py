"""`geotune fit`: check everything that can be checked, then train."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotune.config import Recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data, with_window
from geotune.training.lock import exclusive_lock
from geotune.training.run_dir import RunDir, State


@dataclass(frozen=True)
class FitResult:
    """What `fit_recipe` came to.

    Attributes:
        did: `trained`, `went on` (from an interrupted training) or `nothing` (it was finished).
        run: the run folder.
        metrics: of the validation part, with the best epoch's weights.
        notes: what the user should know.
        main_process: false in the helper processes of a training on many devices.
    """

    did: str
    run: Path
    metrics: dict[str, float]
    notes: list[str]
    summary: dict[str, Any]
    main_process: bool = True


def run_path(recipe: Recipe, recipe_file: Path) -> Path:
    """The run folder: `train.run`, or `runs/` with the recipe's name."""
    return recipe.train.run or Path("runs") / recipe_file.stem


def _silent(text: str) -> None:
    """Say nothing."""


def fit_recipe(
    recipe: Recipe,
    run: Path,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = _silent,
    callbacks: Callable[[], Sequence[Any]] = list,
    caching: Callable[[int, int], None] = lambda done, total: None,
) -> FitResult:
    """Train a recipe in `run`, or go on where an interrupted training stopped.

    Everything that can be checked is checked before the folder is touched, which no other process
    can train in meanwhile. `say` gets a line at
    a time for the user; `callbacks` makes Lightning callbacks that watch the training; `caching`
    is told the windows done and to be done for a cache of features. Raises `GeotuneError` for
    what is wrong.
    """
    folder = RunDir(run)
    helper = _is_helper()
    if helper:
        say = _silent
    asked, recipe = recipe, recipe if fresh else folder.with_saved_defaults(recipe)

    def judge() -> State:
        if helper:  # the main process judges for all, and may be writing there
            return "finished" if not fresh and folder.is_finished(recipe) else "unfinished"
        if not fresh:
            return folder.state(recipe)
        folder.check_owned()
        return "new"

    with ExitStack() as held:
        state = judge()
        locked = run.exists() and not helper and state != "finished"
        if locked:
            held.enter_context(exclusive_lock(run, say))
            state = judge()
        if state == "finished":
            done = folder.read_json("run")
            metrics = folder.read_json("metrics")["val"]
            return FitResult("nothing", run, metrics, done["notes"], done, main_process=not helper)

        say("reading and checking the data")
        data = build_data(recipe)
        recipe = with_window(recipe, data.window)
        say("building the model")
        from geotune.api.fit_to_budget import keep_to_budget
        from geotune.api.train_workflow import train

        begun = False
        notes: list[str] = []
        untold = state == "new" or (helper and recipe is asked)
        if untold and recipe.train.memory_budget is not None:
            recipe, notes = keep_to_budget(recipe, data, say)
            for note in notes:
                say(f"note: {note}")

        def begin(recipe: Recipe) -> None:
            nonlocal state, locked, begun
            if helper:
                return
            if not locked:
                held.enter_context(exclusive_lock(run, say))
                locked = True
                if folder.recipe.is_file():
                    raise GeotuneError(
                        f"{run}: another process has begun a run there in the meantime; give the "
                        "same command again"
                    )
            if state == "new":
                folder.clear()
            folder.start(recipe, asked)
            state, begun = "unfinished", True

        if state == "unfinished" and folder.last.is_file():
            say(f"going on from {folder.last}")
        try:
            trained = train(
                recipe,
                data,
                folder,
                begin=begin,
                say=say,
                callbacks=callbacks(),
                caching=caching,
                notes=notes,
            )
        except GeotuneError:
            if (
                begun and not folder.has_checkpoint
            ):  # the recipe may be mended: nothing is in its way
                folder.clear()
            raise
    if trained is None:
        return FitResult("trained", run, {}, [], {}, main_process=False)
    did = "went on" if trained.went_on else "trained"
    return FitResult(did, run, trained.metrics, trained.summary["notes"], trained.summary)


def _is_helper() -> bool:
    """Whether another process of the same training is the main one."""
    ranks = ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return any(int(os.environ.get(name, "0")) > 0 for name in ranks)
