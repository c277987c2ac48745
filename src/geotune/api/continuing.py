"""Which run can be continued or finished, and what its learning rate does then."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from geotune.config import Recipe, TrainOptions, load_recipe
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir, changed_keys

CONTINUABLE = ("train.epochs", "train.patience")
"""Keys of a recipe that may change when its run is continued."""


def continued_recipe(folder: RunDir, overrides: Sequence[str]) -> tuple[Recipe, bool]:
    """The recipe of a run with `overrides`, and whether it asks for more epochs than before.

    Raises `GeotuneError` for a folder without a run, for other changes than `CONTINUABLE`, and for
    fewer epochs than the run has.
    """
    saved = _saved_recipe(folder)
    recipe = load_recipe(folder.recipe, overrides)[0]
    if any(text.startswith("train.run=") for text in overrides):
        raise _error(
            folder,
            "train.run cannot change when a run is continued: its folder stays; leave it out, or "
            "copy the folder and continue the copy",
        )
    other = [c for c in changed_keys(saved, recipe) if c.partition(":")[0] not in CONTINUABLE]
    if other:
        raise _error(
            folder,
            f"found {'; '.join(other)}, but only {' and '.join(CONTINUABLE)} can change when a run "
            "is continued; give the recipe file and another train.run instead",
        )
    done = len(folder.read_history())
    epochs = recipe.train.epochs
    if epochs < done:
        raise _error(
            folder,
            f"found train.epochs={epochs}, but {done} are complete; give more than {done}",
        )
    changed = recipe != saved
    if not folder.has_summary:
        return recipe, changed
    more = epochs > done and (changed or bool(overrides))
    if more and not folder.last_checkpoint.is_file():
        raise _error(
            folder,
            "the run has no checkpoint to continue from (train.keep_checkpoint: false, or from an "
            "older geotune); train again with --overwrite",
        )
    return recipe, more


def unfinished_recipe(folder: RunDir) -> Recipe:
    """The recipe of an interrupted run. Raises `GeotuneError` if no epoch is complete."""
    recipe = _saved_recipe(folder)
    if not (folder.last_checkpoint.is_file() or folder.previous_checkpoint.is_file()):
        raise _error(
            folder,
            "no epoch is complete, so there is nothing to finish; geotune fit trains it",
        )
    return recipe


def schedule_note(train: TrainOptions, before: int, done: int) -> str:
    """What the learning rate does in epochs after `done`; `before` were planned until now."""
    epochs = train.epochs
    if epochs == before:
        return f"the learning rate continues as planned for {epochs} epochs"
    if train.schedule != "cosine":
        warmup = "" if not train.warmup else f"; the warmup was that of {before} epochs"
        state = "stays" if train.schedule == "constant" else "keeps its reductions"
        return f"the learning rate {state} (train.schedule={train.schedule}){warmup}"
    progress = (done / epochs - train.warmup) / (1 - train.warmup) if train.warmup < 1 else 1.0
    factor = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))
    return (
        f"the learning rate continues along the cosine of {epochs} epochs, from {factor:.0%} of "
        f"its peak; epochs 1 to {done} followed that of {before}, so the result is not that of "
        f"{epochs} epochs at once"
    )


@contextmanager
def interruption_advice(folder: RunDir) -> Iterator[None]:
    """Add to a `KeyboardInterrupt` in the context what can be done with the run in the folder."""
    try:
        yield
    except KeyboardInterrupt as error:
        again = "Run the same command again to "
        error.add_note(
            f"{again}resume from the last completed epoch, or geotune finish "
            f"{shlex.quote(str(folder.path))} to keep the best epoch so far."
            if folder.has_checkpoint
            else f"No epoch is complete, so nothing is kept. {again}start over."
        )
        raise


def _saved_recipe(folder: RunDir) -> Recipe:
    if not folder.recipe.is_file():
        raise _error(
            folder,
            "holds no run (no recipe.yaml); give a recipe file or a run folder; for a folder of "
            f"imagery and labels, geotune init {shlex.quote(str(folder.path))} writes a recipe",
        )
    return load_recipe(folder.recipe)[0]


def _error(folder: RunDir, problem: str) -> GeotuneError:
    return GeotuneError(
        f"{folder.path}: {problem}", code="run-not-continued", key="train.epochs", file=folder.path
    )
