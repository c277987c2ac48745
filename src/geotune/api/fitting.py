"""`geotune fit`: check everything that can be checked, then train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geotune.adapter_config import NOVELTY
from geotune.api.continuing import (
    continued_recipe,
    interruption_advice,
    schedule_note,
    unfinished_recipe,
)
from geotune.api.novelty import add_novelty
from geotune.api.recipes import (
    OnMessage,
    RecipeLike,
    as_recipe,
    ignore_message,
    recipe_name,
)
from geotune.config import Recipe, load_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data, with_window
from geotune.training.check_teacher import check_teacher
from geotune.training.lock import exclusive_lock
from geotune.training.run_dir import RunDir, State
from geotune.training.trackers import Trackers
from geotune.utils.processes import is_helper_process
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries
from geotune.utils.text import pluralize

if TYPE_CHECKING:
    from geotune.api.run import Run


Status = Literal["trained", "resumed", "continued", "finished", "complete"]


@dataclass(frozen=True)
class FitResult:
    """The outcome of `fit`.

    Attributes:
        status: `trained`, `resumed` (from a checkpoint), `continued` (with more epochs), `finished`
            (by `finish`) or `complete` (before).
        run: the run folder.
        metrics: of the validation split, with the weights of the best epoch.
        notes: messages for the user.
        summary: the content of `run.json`.
        main_process: false in the helper processes of distributed training.
    """

    status: Status
    run: Path
    metrics: dict[str, float]
    notes: list[str]
    summary: dict[str, Any]
    main_process: bool = True

    def load(self) -> Run:
        """The finished run."""
        from geotune.api.run import load_run

        return load_run(self.run)


def run_path(recipe: Recipe, name: str) -> Path:
    """The run folder: `train.run`, or `runs/<name>`."""
    return recipe.train.run or Path("runs") / name


def fit(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    run: Path | str | None = None,
    overwrite: bool = False,
    estimate_memory: bool = False,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
    callbacks: Callable[[], Sequence[Any]] = list,
) -> FitResult:
    """Train a recipe, resume an interrupted run of it, or continue a finished run.

    With a run folder in place of a recipe, its training is resumed, or with overrides such as
    `train.epochs=40` continued: the history stays, and the learning rate follows the schedule of
    the new number of epochs.

    Everything that can be checked is checked before the run folder is touched. While it trains, no
    other process can use the folder.

    Args:
        recipe: a YAML file, a dict of sections, a parsed recipe, or a run folder.
        overrides: changes such as `train.epochs=5`; of a run folder only `train.epochs` and
            `train.patience`.
        run: the run folder; by default `train.run`, else `runs/<recipe name>`.
        overwrite: start again and remove an earlier run from the folder.
        estimate_memory: also estimate the memory of a step, as `plan` does, and record it beside
            the measured memory. It takes seconds; with `train.memory_budget` it is known anyway.
        on_message: receives progress messages and notes.
        on_progress: receives the progress of each phase.
        callbacks: creates Lightning callbacks for the training.

    Raises `GeotuneError` for an invalid recipe or data, for a folder of another recipe, and for a
    training that fails.
    """
    more = False
    if isinstance(recipe, str | Path) and Path(recipe).is_dir():
        folder = RunDir(Path(recipe))
        if overwrite:
            parsed = as_recipe(folder.recipe, overrides, on_message)
        else:
            parsed, more = continued_recipe(folder, overrides)
    else:
        parsed = as_recipe(recipe, overrides, on_message)
        folder = RunDir(run_path(parsed, recipe_name(recipe)) if run is None else Path(run))
    return _fit(
        parsed,
        folder,
        overwrite=overwrite,
        more=more and not is_helper_process(),
        estimate_memory=estimate_memory,
        on_message=on_message,
        on_progress=on_progress,
        callbacks=callbacks,
    )


def finish(
    run: Path | str,
    *,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> FitResult:
    """Complete an interrupted run without training further: its best epoch so far is the result.

    The run has all files of a trained one, and can be continued by `fit` with its folder and
    `train.epochs`. A complete run of an older version gets `novelty.safetensors`, with which
    `predict` measures novelty; it is otherwise unchanged.

    Args:
        run: the run folder.
        on_message: receives progress messages and notes.
        on_progress: receives the progress of each phase.

    Raises `GeotuneError` if no epoch is complete.
    """
    folder = RunDir(Path(run))
    result = _fit(
        unfinished_recipe(folder),
        folder,
        stop=True,
        on_message=on_message,
        on_progress=on_progress,
    )
    if result.status == "complete" and add_novelty(
        run, on_message=on_message, on_progress=on_progress
    ):
        on_message(f"added {NOVELTY}, for geotune predict --novelty")
    return result


def _fit(
    recipe: Recipe,
    folder: RunDir,
    *,
    overwrite: bool = False,
    more: bool = False,
    stop: bool = False,
    estimate_memory: bool = False,
    on_message: OnMessage,
    on_progress: OnProgress,
    callbacks: Callable[[], Sequence[Any]] = list,
) -> FitResult:
    """Train in a run folder.

    Args:
        recipe: parsed.
        folder: of the run.
        overwrite: start again.
        more: the recipe has changes that continue the run in the folder.
        stop: train no further epoch.
        estimate_memory: see `fit`.
        on_message: see `fit`.
        on_progress: see `fit`.
        callbacks: see `fit`.
    """
    run = folder.path
    helper = is_helper_process()
    if helper:
        on_message, on_progress = ignore_message, ignore_progress
    adapts = recipe.train.activation_checkpointing == "auto"
    chosen = recipe if overwrite else folder.with_saved_choices(recipe)
    precision_saved = chosen.train.precision != recipe.train.precision
    asked, recipe = chosen, chosen if overwrite else folder.with_saved_defaults(chosen)
    if more:
        asked = folder.requested(recipe)

    def current_state() -> State:
        if helper:  # the main process decides for all, and may be writing to the folder
            return "finished" if not overwrite and folder.is_finished(recipe) else "unfinished"
        if more:
            return "unfinished"
        if not overwrite:
            return folder.state(recipe)
        folder.check_owned()
        return "new"

    with ExitStack() as held:
        held.enter_context(interruption_advice(folder))
        state = current_state()
        locked = run.exists() and not helper and state != "finished"
        if locked:
            held.enter_context(exclusive_lock(run, on_message))
            state = current_state()
        if state == "finished":
            done = folder.read_json("run")
            metrics = folder.read_json("metrics")["val"]
            return FitResult("complete", run, metrics, done["notes"], done, main_process=not helper)

        trackers = held.enter_context(Trackers(recipe.train.loggers, folder, on_message))
        if recipe.distill is not None:
            check_teacher(recipe, run)
        on_message("reading and checking the data")
        data = build_data(recipe, on_progress)
        recipe = with_window(recipe, data.window)
        on_message("building the model")
        with loading_libraries(on_progress, ALL_MODULES):
            from geotune.api.environment import resolve_precision
            from geotune.api.planning import fit_to_budget, start_without_checkpointing
            from geotune.api.train_workflow import train

        started = False
        planned_bytes = None
        first_start = state == "new" or (helper and recipe is asked)
        recipe, notes = resolve_precision(recipe, saved=precision_saved)
        recipe = start_without_checkpointing(recipe)
        asked = asked.with_train(precision=recipe.train.precision)
        if stop:
            notes.append(_finish_note(folder, recipe))
        elif more:
            done = len(folder.read_history())
            before = load_recipe(folder.recipe)[0].train.epochs
            notes.append(
                f"continued after epoch {done}: {schedule_note(recipe.train, before, done)}"
            )
        for note in notes:
            on_message(f"note: {note}")
        if first_start and recipe.train.memory_budget is not None:
            recipe, planned_bytes, budget_notes = fit_to_budget(recipe, data, on_message)
            for note in budget_notes:
                on_message(f"note: {note}")
            notes += budget_notes

        def on_start(recipe: Recipe) -> None:
            nonlocal state, locked, started
            if helper:
                return
            if not locked:
                held.enter_context(exclusive_lock(run, on_message))
                locked = True
                if folder.recipe.is_file():
                    raise GeotuneError(
                        f"{run}: another process started a run there in the meantime; run the same "
                        "command again",
                        code="run-in-use",
                        key="train.run",
                        file=run,
                    )
            if state == "new":
                folder.clear()
            if more and not started:
                folder.reopen()
            level = recipe.train.activation_checkpointing
            folder.create(
                recipe, asked.with_train(activation_checkpointing=level) if adapts else asked
            )
            state, started = "unfinished", True
            trackers.open()

        try:
            trained = train(
                recipe,
                data,
                folder,
                on_start=on_start,
                on_message=on_message,
                callbacks=callbacks(),
                on_progress=on_progress,
                notes=notes,
                estimate_memory=estimate_memory,
                planned_bytes=planned_bytes,
                adapt_checkpointing=adapts,
                stop=stop,
                overwrite=overwrite,
                trackers=trackers,
            )
        except (GeotuneError, KeyboardInterrupt):
            if started and not folder.has_checkpoint:  # leave the folder free for a fixed recipe
                folder.clear()
            raise
    if trained is None:
        return FitResult("trained", run, {}, [], {}, main_process=False)
    status: Status = "resumed" if trained.resumed else "trained"
    if more or stop:
        status = "continued" if more else "finished"
    return FitResult(status, run, trained.metrics, trained.summary["notes"], trained.summary)


def _finish_note(folder: RunDir, recipe: Recipe) -> str:
    epochs = recipe.train.epochs
    done = len(folder.read_history())
    return (
        f"finished after {done} of {pluralize(epochs, 'epoch')}, with the learning rate of epoch "
        f"{done} of the schedule; geotune fit {folder.path} train.epochs={epochs} continues it "
        "where it stopped"
    )
