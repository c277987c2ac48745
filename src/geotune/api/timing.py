"""`geotune plan --time`: estimate the time of a training from its first steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from geotune.api.environment import resolve_precision
from geotune.api.recipes import OnMessage
from geotune.api.train_workflow import epoch_validation
from geotune.config import Recipe
from geotune.data.datamodule import DataModule
from geotune.data.raster.orientation import NUM_ORIENTATIONS
from geotune.data.window_datasets import RandomWindowDataset
from geotune.factory.build_data import build_data, with_window
from geotune.factory.build_model import build_training, resolve_recipe
from geotune.training.run_dir import RunDir
from geotune.training.step import num_devices
from geotune.training.time_estimate import TimeEstimate
from geotune.training.trainer import fit
from geotune.training.training_progress import MEASURED_STEPS, WARMUP_STEPS, StepTimes
from geotune.utils.progress import OnProgress

STEPS = WARMUP_STEPS + MEASURED_STEPS


class _MeasuredError(Exception):
    """Ends the training once its steps are measured."""


def estimate_time(recipe: Recipe, on_message: OnMessage, on_progress: OnProgress) -> TimeEstimate:
    """Read the data, build the model, train `STEPS` steps in a temporary folder, and extrapolate.

    Measured on one device, which takes its share of a batch. Raises `GeotuneError` like a training.
    """
    on_message("reading and checking the data")
    data = build_data(recipe, on_progress)
    recipe, _ = resolve_precision(with_window(recipe, data.window))
    recipe, _ = resolve_recipe(recipe, data)
    on_message(f"measuring {STEPS} training steps")
    built = build_training(recipe, data.statistics)
    world = num_devices(recipe.train) * recipe.train.nodes
    watched = epoch_validation(data, recipe.train.validation_windows)
    batch_size = recipe.train.batch_size // world
    micro = batch_size // recipe.train.accumulate_steps
    few = replace(
        data,
        train=_first_windows(data.train, STEPS * batch_size),
        val=epoch_validation(data, 2 * micro).val,
    )
    train = recipe.train.model_copy(
        update={
            "epochs": 1,
            "batch_size": batch_size,
            "devices": 1,
            "nodes": 1,
            "strategy": "auto",
            "cache": "none" if recipe.train.cache == "none" else "memory",
        }
    )
    measured: list[StepTimes] = []
    features: list[tuple[float, int]] = []  # when how many windows were finished

    def on_measured(times: StepTimes) -> None:
        measured.append(times)
        raise _MeasuredError

    def on_phase(phase: str, done: int, total: int, seconds_left: float | None = None) -> None:
        if phase == "features":
            features.append((time.perf_counter(), done))
        on_progress(phase, done, total, seconds_left)

    with TemporaryDirectory() as folder, suppress(_MeasuredError):
        run = RunDir(Path(folder))
        fit(built, few, train, run, on_progress=on_phase, on_measured=on_measured)
    [times] = measured
    options = recipe.train
    windows = len(data.train)
    batches = windows / options.batch_size
    return TimeEstimate(
        epochs=options.epochs,
        windows=windows,
        steps=int(batches) if options.drop_last else ceil(batches),
        seconds_per_step=times.step,
        val_windows=len(watched.val),
        validations=sum(map(options.validates, range(options.epochs))),
        seconds_per_validation=ceil(len(watched.val) / world) * times.val_window,
        cache_seconds=_seconds_per_item(features) * _cached_windows(data),
    )


def _cached_windows(data: DataModule) -> int:
    """Windows of a cache: those of training in every orientation, and those of validation."""
    orientations = NUM_ORIENTATIONS if data.train.augment.flips else 1
    return len(data.train) * orientations + len(data.val)


def _seconds_per_item(reports: Sequence[tuple[float, int]]) -> float:
    """From (time, finished items), without those of the first batch; 0 without reports."""
    later = [(when, done) for when, done in reports if done]
    if not later:
        return 0.0
    (start, first), (end, last) = later[0], later[-1]
    return (end - start) / (last - first)


def _first_windows(windows: RandomWindowDataset, count: int) -> RandomWindowDataset:
    """An epoch of so many windows, whose features are cached in one orientation."""
    few = copy(windows)
    few.samples = count
    few.augment = windows.augment.model_copy(update={"flips": False})
    return few
