"""Train a built recipe in a run folder."""

from __future__ import annotations

import platform
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from safetensors import SafetensorError
from safetensors.torch import load_file

from geotune.config import TrainOptions
from geotune.data.datamodule import DataModule
from geotune.data.window_datasets import FixedWindowDataset
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel
from geotune.feature_cache.build_cache import FeatureCache, build_cache, check_backbone_frozen
from geotune.feature_cache.teacher_cache import (
    TaughtWindowDataset,
    Teacher,
    TeacherCache,
    build_teacher_cache,
)
from geotune.memory.measure import MeasuredPeak, PeakMonitor
from geotune.memory.offload import offloaded, tensors_outside
from geotune.memory.oom import is_oom
from geotune.training.checkpointer import Checkpointer
from geotune.training.compile import check_compilable, compiled_blocks
from geotune.training.distillation import Distillation
from geotune.training.evaluate import Evaluation
from geotune.training.fsdp import is_sharded
from geotune.training.lightning_trainer import make_trainer, silence_lightning
from geotune.training.loaders import EpochSampler, WindowDataset, make_loader
from geotune.training.memory_adaptation import OnChange, StepMemory
from geotune.training.memory_callback import StepMemoryCallback
from geotune.training.micro_batching import next_smaller_divisor
from geotune.training.run_dir import RunDir
from geotune.training.step import micro_batch_size
from geotune.training.training_module import TrainingModule, lower_is_better
from geotune.training.training_progress import StepTimes, TrainingProgress
from geotune.types import Batch
from geotune.utils.progress import OnProgress, ignore_progress


@dataclass(frozen=True)
class TrainerResult:
    """Result of a training; the model has the weights of the last epoch, the folder the best ones.

    Attributes:
        history: one row per epoch.
        best_epoch: from 0.
        accumulate_steps: final number of micro-batches per batch.
        peak: measured memory.
        resumed: whether training started from a checkpoint.
        main_process: false in the other processes of distributed training.
        sharded: the model is sharded, and unusable in a single process.
        validation: of the best epoch; None if the model must be evaluated again: with several
            processes, and with a cache, whose features differ from those of a prediction.
        cache: of features, if the backbone did not run.
        teacher_cache: what the teacher gave, if there is one.
        notes: for the user.
        code: the versions of geotune's code that trained, see `Checkpointer`.
    """

    history: list[dict[str, float]]
    best_epoch: int
    accumulate_steps: int
    peak: MeasuredPeak
    device: torch.device
    resumed: bool
    main_process: bool
    sharded: bool = False
    validation: Evaluation | None = None
    cache: FeatureCache | None = None
    teacher_cache: TeacherCache | None = None
    notes: Sequence[str] = ()
    code: Sequence[str] = ()


def resolve_monitor(built: BuiltModel, train: TrainOptions) -> str:
    """The name of the metric that selects the best epoch.

    Raises `GeotuneError` if `train.monitor` is not a metric of the task.
    """
    known = ["loss", *built.task.metric_names]
    name = (train.monitor or built.task.main_metric).removeprefix("val/")
    if name not in known:
        raise GeotuneError(
            f"train.monitor: found {train.monitor!r}, expected one of {', '.join(known)}",
            code="recipe-invalid",
            key="train.monitor",
        )
    return name


def fit(
    built: BuiltModel,
    data: DataModule,
    train: TrainOptions,
    run_dir: RunDir,
    callbacks: Sequence[Callback] = (),
    on_start: Callable[[], None] = lambda: None,
    on_change: OnChange = lambda options, reason: None,
    on_message: Callable[[str], None] = lambda text: None,
    on_progress: OnProgress = ignore_progress,
    on_measured: Callable[[StepTimes], None] = lambda times: None,
    estimate_memory: bool = False,
    planned_bytes: int | None = None,
    adapt_checkpointing: bool = False,
    stop: bool = False,
    teacher: Teacher | None = None,
    trackers: Sequence[Logger] = (),
) -> TrainerResult:
    """Train, or resume from the checkpoint of the run folder.

    Args:
        built: model and task.
        data: all splits.
        train: options.
        run_dir: to write to.
        callbacks: of Lightning.
        on_start: called once all settings are checked, before anything is written.
        on_change: receives new values of `train` options and the reason when memory does not
            suffice; only called in single-process training.
        on_message: receives messages for the user.
        on_progress: receives cached windows, training steps and batches of a validation.
        on_measured: receives the times of the first steps.
        estimate_memory: estimate the memory of a step if it is not planned, or ran out.
        planned_bytes: the estimated memory of a step.
        adapt_checkpointing: recompute more activations if memory does not suffice: if it runs out,
            or if the estimate exceeds the free memory.
        stop: train no further epoch.
        teacher: what the model learns from besides the labels; released before the training.
        trackers: further loggers.

    Raises `GeotuneError` for incompatible settings, a loss that is not finite, and if memory runs
    out with the smallest micro-batch.
    """
    silence_lightning()
    monitor = resolve_monitor(built, train)
    lower = lower_is_better(built.task, monitor)
    checkpointer = Checkpointer(
        run_dir, f"val/{monitor}", train.patience, lower_is_better=lower, stop=stop
    )
    epoch_start = _EpochStart(checkpointer, train)
    trainer = make_trainer(
        train, run_dir, [checkpointer, epoch_start, *callbacks, _CheckFiniteLoss()], trackers
    )
    world, rank = trainer.world_size, trainer.global_rank
    micro = micro_batch_size(train.batch_size, train.accumulate_steps, world)
    _check_settings(built, data, train, world)
    if teacher is not None and teacher.options.cache == "memory":
        _check_one_copy("distill.cache", world)
    on_start()
    encoder, device = built.model.encoder, trainer.strategy.root_device
    _restore_calibration(built, run_dir)
    cache = None
    if train.cache == "none" or stop:
        built.model.calibrate_on(data.train)
    else:
        cache = build_cache(
            built.model,
            data,
            train,
            batch_size=micro,
            device=device,
            on_message=on_message,
            on_progress=partial(on_progress, "features"),
        )
    options: dict[str, Any] = {"workers": train.workers, "rank": rank, "world": world, "pin": True}
    train_windows: WindowDataset = cache.train if cache else data.train
    val_windows = cache.val if cache else data.val
    distillation, teacher_cache = None, None
    if teacher is not None:
        distillation = Distillation(encoder, built.task, teacher, seed=train.seed)
        if not stop:
            fixed = cache.train.windows if cache else FixedWindowDataset(data.train)
            assert isinstance(fixed, FixedWindowDataset)
            teacher_cache = build_teacher_cache(
                teacher,
                fixed,
                train,
                batch_size=micro,
                device=device,
                on_message=on_message,
                on_progress=partial(on_progress, "features of the teacher"),
            )
            train_windows = TaughtWindowDataset(cache.train if cache else fixed, teacher_cache)
        teacher.release()
    train_loader = make_loader(
        train_windows, micro * train.accumulate_steps, drop_last=train.drop_last, **options
    )
    val_loader = make_loader(val_windows, micro, **options)
    epoch_start.sampler = train_loader.sampler
    progress = TrainingProgress(
        train, len(train_windows), val_loader, on_progress, on_message, on_measured
    )
    trainer.callbacks.append(progress)  # type: ignore[attr-defined]
    single_process = world == 1 and train.strategy != "fsdp"
    step_memory = StepMemory(
        built.model,
        built.task,
        train,
        micro=micro,
        planned_bytes=planned_bytes,
        adapt_checkpointing=adapt_checkpointing,
        on_change=on_change if single_process else None,
    )
    module = TrainingModule(
        built.model,
        built.task,
        step_memory.micro_batcher,
        total_steps=len(train_loader) * train.epochs,
        monitor=monitor,
        lr=train.lr,
        backbone_lr=train.backbone_lr,
        weight_decay=train.weight_decay,
        layer_decay=train.layer_decay,
        decay_all=train.decay_all,
        schedule=train.schedule,
        warmup=train.warmup,
        seed=train.seed,
        max_val_batches=ceil(ceil(len(data.val) / world) / micro),
        val_windows=data.val if single_process and cache is None else None,
        distillation=distillation,
    )
    module.strict_loading = False  # checkpoints hold trained tensors only
    peak_monitor = PeakMonitor(device)
    measured = StepMemoryCallback(len(data.train) // train.batch_size)
    if single_process and device.type == "cpu":
        trainer.callbacks.append(measured)  # type: ignore[attr-defined]  # last, so ends first
    owns_process_group = not torch.distributed.is_initialized()

    def run() -> bool:
        """Train in each process; returns whether it resumed from a checkpoint."""
        checkpoint = run_dir.find_checkpoint(on_message) if rank == 0 else None
        if world > 1:  # the main process may have cleared the folder since this one looked
            trainer.strategy.connect(module)
            trainer.strategy.setup_environment()
            checkpoint = trainer.strategy.broadcast(checkpoint)
            if checkpoint is not None and not checkpoint.is_file():
                raise GeotuneError(
                    f"{checkpoint}: not visible to process {rank} of {world} on {platform.node()}; "
                    "all machines must share train.run",
                    code="run-not-shared",
                    key="train.run",
                    file=checkpoint,
                )
        if checkpoint is not None:
            on_message(f"resuming from {checkpoint}")
        trainer.fit(module, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
        return checkpoint is not None

    try:
        with ExitStack() as context:
            if cache:
                context.enter_context(encoder.without_backbone())
                if single_process:
                    unused = tensors_outside(encoder.backbone, built.model)
                    context.enter_context(offloaded(unused, run_dir.offloaded_backbone))
            estimates = estimate_memory and train.strategy != "fsdp"  # FSDP needs less
            if trainer.is_global_zero and estimates:
                example = Batch.from_samples([train_windows[0]])
                step_memory.estimate(example, device, world)
            compiles = train.compile and not cache
            launcher = trainer.strategy.launcher
            with compiled_blocks(encoder, device, on_message) if compiles else nullcontext():
                resumed = launcher.launch(run) if launcher else run()
    except (RuntimeError, MemoryError) as error:
        if is_oom(error):
            raise _oom_error(error, train, micro, world) from error
        if world > 1 and _is_lost_connection(error):
            raise _lost_process_error(error, rank, world, run_dir.path) from error
        raise
    except SystemExit as error:  # Lightning turns Ctrl+C into this, and disables its handler
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from error
    finally:
        measured.close()
    if owns_process_group and torch.distributed.is_initialized():
        # only the main process continues: its metrics must not wait for the others
        torch.distributed.destroy_process_group()
    assert checkpointer.best_epoch is not None
    tie = checkpointer.tie_note(len(data.val))
    early_stop = checkpointer.early_stop_note(train.epochs, train.schedule)
    notes = [note for note in (tie, early_stop) if note]
    for note in notes:
        on_message(f"note: {note}")
    validated = Evaluation.load(run_dir.best_validation)
    return TrainerResult(
        checkpointer.history,
        checkpointer.best_epoch,
        train.batch_size // world // step_memory.micro_batcher.size,
        replace(
            peak_monitor.peak(),
            tracked_bytes=measured.peak.total if measured.peak else None,
            predicted_bytes=step_memory.predicted_bytes(),
        ),
        device,
        bool(resumed),
        trainer.is_global_zero,
        is_sharded(built.model),
        validated[1] if validated and validated[0] == checkpointer.best_epoch else None,
        cache,
        teacher_cache,
        notes,
        checkpointer.code,
    )


def _restore_calibration(built: BuiltModel, run_dir: RunDir) -> None:
    """Give the method's reader the calibration of a run that is resumed.

    Another one may differ, as the start from an adapter or the signs of principal components do,
    and cached features would not be those that the checkpoint belongs to.
    """
    if not (built.model.encoder.reader.calibration_samples and run_dir.best_weights.is_file()):
        return
    with suppress(OSError, SafetensorError):  # reported when the checkpoint is opened
        tensors = load_file(run_dir.best_weights)
        prefix = "encoder.reader."
        of_reader = {name: t for name, t in tensors.items() if name.startswith(prefix)}
        built.model.load_state_dict(of_reader, strict=False)


def _check_settings(built: BuiltModel, data: DataModule, train: TrainOptions, world: int) -> None:
    if len(data.val) < world:  # a process without windows would block the others
        raise GeotuneError(
            f"train.devices: {world} processes, but the validation split has only {len(data.val)} "
            "windows; use fewer devices, a smaller data.window or more validation scenes",
            code="settings-incompatible",
            key="train.devices",
        )
    if train.drop_last and len(data.train) < train.batch_size:
        raise GeotuneError(
            f"train.drop_last: an epoch has {len(data.train)} windows, fewer than train.batch_size "
            f"({train.batch_size}), so no batch is left; use a smaller batch or more data.samples",
            code="settings-incompatible",
            key="train.drop_last",
        )
    if train.cache != "none":
        check_backbone_frozen(built.model.encoder, train.cache)
    if train.compile:
        check_compilable(built.model.encoder)
    if train.cache == "memory":
        _check_one_copy("train.cache", world)


def _check_one_copy(key: str, world: int) -> None:
    if world > 1:
        raise GeotuneError(
            f"{key} memory: each of {world} processes would hold a full copy; use {key}=disk, "
            "which they share",
            code="cache-not-possible",
            key=key,
        )


def _oom_error(error: BaseException, train: TrainOptions, micro: int, world: int) -> GeotuneError:
    smaller = next_smaller_divisor(micro) or 1
    if world > 1 and smaller < micro:  # a process cannot retry while others wait for its gradients
        steps = train.accumulate_steps * micro // smaller
        advice = (
            "set train.activation_checkpointing=all, which needs more time, or "
            f"train.accumulate_steps={steps}; with several processes it is not automatic"
        )
    else:
        advice = "geotune plan --budget suggests settings that save memory"
    message = str(error).partition("\n")[0]
    return GeotuneError(
        f"memory ran out with {micro} windows at once: {message}; {advice}",
        code="out-of-memory",
        key="train.accumulate_steps",
    )


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective operation failed because another process ended."""
    if isinstance(error, torch.distributed.DistBackendError | torch.distributed.DistNetworkError):
        return True
    # gloo raises plain runtime errors, with the path of its own source
    return "gloo" in str(error) and " by peer" in str(error)


def _lost_process_error(error: BaseException, rank: int, world: int, run: Path) -> GeotuneError:
    cause = str(error).rpartition("] ")[2].partition(". ")[0]
    return GeotuneError(
        f"process {rank} of {world} on {platform.node()} lost its connection to another ({cause}); "
        "that one was killed, ran out of memory or crashed, and says why if it could; "
        f"the same command resumes {run} from its last epoch",
        code="process-lost",
        key="train.devices",
    )


class _EpochStart(Callback):
    """Let a resumed training draw the windows of its own epoch, and decide which are validated.

    Lightning creates the iterator, and with it the workers that prefetch, before it tells the
    sampler the epoch.
    """

    def __init__(self, checkpointer: Checkpointer, train: TrainOptions) -> None:
        self.checkpointer = checkpointer
        self.train = train
        self.sampler: Any = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch
        # Lightning validates if this divides epoch + 1
        trainer.check_val_every_n_epoch = 1 if self.train.validates(epoch) else epoch + 2

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(len(self.checkpointer.history))


class _CheckFiniteLoss(Callback):
    """Raises `GeotuneError` for a loss that is not finite, before anything is written.

    All processes stop together, because one alone would leave the others waiting for it. They have
    just exchanged their gradients, so summing one more number takes no time.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        failed = ~torch.isfinite(pl_module.loss)
        if not pl_module.sum_processes(failed.float()):
            return
        errors = [
            f"the loss is {float(pl_module.loss)} in epoch {trainer.current_epoch + 1}, batch "
            f"{batch_idx + 1} ({', '.join(batch.names[:3])} ...); try a lower train.lr, or "
            "train.precision=32-true"
            if failed
            else ""
        ]
        if trainer.world_size > 1:
            errors *= trainer.world_size
            torch.distributed.all_gather_object(errors, errors[0])
        raise GeotuneError(next(filter(None, errors)), code="loss-not-finite", key="train.lr")
