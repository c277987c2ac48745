"""Training a built recipe in a run folder."""

from __future__ import annotations

import logging
import platform
import signal
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geotune.config import TrainOptions
from geotune.data.datamodule import DataModule
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel
from geotune.feature_cache.build_cache import FeatureCache, build_cache, check_backbone_frozen
from geotune.memory.estimate import DataDependentModelError, StepSpec, estimate_peak
from geotune.memory.measure import MeasuredPeak, PeakMonitor
from geotune.memory.oom import is_oom
from geotune.memory.tracker import to_fake
from geotune.training.checkpointer import Checkpointer
from geotune.training.compile import check_compilable, compiled_blocks
from geotune.training.fsdp import is_sharded
from geotune.training.loaders import make_loader
from geotune.training.memory_callback import StepMemoryCallback
from geotune.training.micro_batching import MicroBatcher, next_smaller_divisor
from geotune.training.run_dir import RunDir
from geotune.training.step import micro_batch_size, num_devices, training_step_spec
from geotune.training.training_module import TrainingModule
from geotune.types import Batch


@dataclass(frozen=True)
class TrainerResult:
    """What a training came to. The folder holds the best epoch's tensors, the model the last's.

    Attributes:
        sharded: the model is parted among processes, and no use to one of them alone.
        best_epoch: from 0.
        accumulate: in how many parts a batch was computed, in the end.
        went_on: whether it went on from the checkpoint of one that was cut off.
        main_process: false in the helper processes of a training on many devices.
        cache: of features, where the backbone did not run.
    """

    history: list[dict[str, float]]
    best_epoch: int
    accumulate_steps: int
    peak: MeasuredPeak
    device: torch.device
    resumed: bool
    main_process: bool
    sharded: bool = False
    cache: FeatureCache | None = None


def resolve_monitor(built: BuiltModel, train: TrainOptions) -> str:
    """The name of the metric that decides, as the task knows it.

    Raises `GeotuneError` where `train.monitor` is no metric of the task.
    """
    known = built.task.metric_names
    name = (train.monitor or built.task.main_metric).removeprefix("val/")
    if name not in known:
        raise GeotuneError(
            f"train.monitor: found {train.monitor!r}, expected one of {', '.join(known)}"
        )
    return name


def fit(
    built: BuiltModel,
    data: DataModule,
    train: TrainOptions,
    run_dir: RunDir,
    callbacks: Sequence[Callback] = (),
    on_start: Callable[[], None] = lambda: None,
    on_oom: Callable[[int, str], None] = lambda micro, why: None,
    on_message: Callable[[str], None] = lambda text: None,
    on_cache_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainerResult:
    """Train, going on from the folder's checkpoint where there is one.

    `begin` is called once the settings are known to fit together, before anything is written;
    `fewer` is told how many windows are computed at once from now on, and why, where memory ran
    out in the one process of a training; `on_message` gets a line at a time for the user, `caching`
    windows done and to be done for a cache. Raises `GeotuneError` where the settings do not fit
    together, where the loss is not finite, and where memory runs out for good.
    """
    _silence_lightning()
    monitor = resolve_monitor(built, train)
    lower = monitor in built.task.lower_is_better
    keeper = Checkpointer(run_dir, f"val/{monitor}", train.patience, lower_is_better=lower)
    extra: list[Callback] = [keeper, *callbacks, _CheckFiniteLoss()]
    trainer = make_trainer(train, run_dir, extra)
    world, rank = trainer.world_size, trainer.global_rank
    micro = micro_batch_size(train.batch_size, train.accumulate_steps, world)
    if len(data.val) < world:  # a process without a window would leave the others waiting
        raise GeotuneError(
            f"train.devices: {world} processes, but the validation part has only {len(data.val)} "
            "windows; use fewer devices, a smaller data.window or more validation scenes"
        )
    if train.cache != "none":
        check_backbone_frozen(built.model.encoder, train.cache)
    if train.compile:
        check_compilable(built.model.encoder)
    if train.cache == "memory" and world > 1:
        raise GeotuneError(
            f"train.cache memory: each of {world} processes would keep all of it; use "
            "train.cache=disk, which they share"
        )
    on_start()
    cache = None
    if train.cache == "none":
        built.model.calibrate_on(data.train)
    else:
        device = trainer.strategy.root_device
        cache = build_cache(
            built.model,
            data,
            train,
            batch_size=micro,
            device=device,
            on_message=on_message,
            progress=on_cache_progress,
        )
    share: dict[str, Any] = {"workers": train.workers, "rank": rank, "world": world, "pin": True}
    batches = make_loader(
        cache.train if cache else data.train, micro * train.accumulate_steps, **share
    )
    validation = make_loader(cache.val if cache else data.val, micro, **share)
    largest_share = -(-len(data.val) // world)
    whole = world == 1 and train.strategy != "fsdp"  # one process holds all of the model
    module = TrainingModule(
        built.model,
        built.task,
        MicroBatcher(micro, on_oom if whole else None),
        total_steps=len(batches) * train.epochs,
        monitor=monitor,
        lr=train.lr,
        backbone_lr=train.backbone_lr,
        weight_decay=train.weight_decay,
        schedule=train.schedule,
        warmup=train.warmup,
        seed=train.seed,
        max_val_batches=-(-largest_share // micro),
    )
    module.strict_loading = False  # a checkpoint holds what trains, not the frozen weights
    watch = PeakMonitor(trainer.strategy.root_device)
    tracked = StepMemoryCallback(len(data.train) // train.batch_size)
    if whole and trainer.strategy.root_device.type == "cpu":
        trainer.callbacks.append(tracked)  # type: ignore[attr-defined]  # last, so first to end
    alone = not torch.distributed.is_initialized()
    encoder, device = built.model.encoder, trainer.strategy.root_device

    def run() -> bool:
        """Train in each of the processes; says whether it went on from a checkpoint."""
        going_on = run_dir.last_checkpoint if run_dir.last_checkpoint.is_file() else None
        if world > 1:  # the main process may have emptied the folder after another looked
            trainer.strategy.connect(module)
            trainer.strategy.setup_environment()
            going_on = trainer.strategy.broadcast(going_on)
            if going_on is not None and not going_on.is_file():
                raise GeotuneError(
                    f"{going_on}: is not seen by process {rank} of {world} on {platform.node()}; "
                    "all machines have to share train.run"
                )
        trainer.fit(module, batches, validation, ckpt_path=going_on, weights_only=True)
        return going_on is not None

    draft = None
    try:
        with encoder.without_backbone() if cache else nullcontext():
            if trainer.is_global_zero and train.strategy != "fsdp":  # which holds less
                draft = to_fake(built.model, FakeTensorMode())  # while it is on the CPU
            streams = train.compile and not cache
            launcher = trainer.strategy.launcher
            with compiled_blocks(encoder, device, on_message) if streams else nullcontext():
                went_on = launcher.launch(run) if launcher else run()
    except (RuntimeError, MemoryError) as error:
        if not is_oom(error):
            raise
        said = str(error).partition("\n")[0]
        smaller = next_smaller_divisor(micro) or 1
        advice = (  # one process cannot do its step again while the others wait for its gradients
            f"set train.accumulate_steps={train.accumulate_steps * micro // smaller}, which several processes "
            "do not find out by themselves"
            if world > 1 and smaller < micro
            else "geotune plan --budget says what saves memory"
        )
        raise GeotuneError(
            f"memory ran out with {micro} windows at once: {said}; {advice}"
        ) from error
    except SystemExit as error:  # what Lightning makes of Ctrl+C, which it also turns off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from error
    finally:
        tracked.close()
    if alone and torch.distributed.is_initialized():
        # what follows is the main process's alone: its metrics must not wait for the others
        torch.distributed.destroy_process_group()
    assert keeper.best_epoch is not None
    predicted = None
    if draft is not None:
        one = Batch.from_samples([(cache.train if cache else data.train)[0]])
        step = training_step_spec(
            built.task,
            train,
            one.inputs,
            one.targets,
            world=world,
            micro_batch=module.micro_batcher.size,
        )
        predicted = estimated_step_bytes(draft, step, trainer.strategy.root_device)
    return TrainerResult(
        keeper.history,
        keeper.best_epoch,
        train.batch_size // world // module.micro_batcher.size,
        replace(
            watch.peak(),
            tracked_bytes=tracked.peak.total if tracked.peak else None,
            predicted_bytes=predicted,
        ),
        trainer.strategy.root_device,
        bool(went_on),
        trainer.is_global_zero,
        is_sharded(built.model),
        cache,
    )


def make_trainer(train: TrainOptions, run_dir: RunDir, callbacks: list[Callback]) -> Trainer:
    """Build the Lightning trainer. Raises `GeotuneError` if Lightning rejects the settings."""
    strategy: str | Strategy = train.strategy
    processes = num_devices(train)
    many = train.nodes > 1 or processes > 1 or train.strategy == "ddp"
    if train.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            data_parallel_size=train.nodes * processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, for any number of processes
        )
    elif many and train.strategy in ("auto", "ddp"):
        # each process validates its own windows, so buffers are not exchanged in every forward
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
    assert train.precision != "auto"  # resolved before
    logger: Any = TensorBoardLogger(run_dir.path, name="tensorboard", version="")
    try:
        return Trainer(
            accelerator=train.accelerator,
            devices=processes,
            num_nodes=train.nodes,
            strategy=strategy,
            precision=train.precision,
            max_epochs=train.epochs,
            gradient_clip_val=train.grad_clip_norm or None,
            callbacks=callbacks,
            logger=logger,
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            sync_batchnorm=many and torch.cuda.is_available() and train.accelerator != "cpu",
        )
    except (MisconfigurationException, ValueError) as error:
        raise GeotuneError(
            f"train.accelerator {train.accelerator}, train.devices {train.devices}, train.strategy "
            f"{train.strategy}, train.precision {train.precision}: {error}"
        ) from error


def estimated_step_bytes(model: nn.Module, step: StepSpec, device: torch.device) -> int | None:
    """What a step's tensors take on a device; None for a model that looks at values."""
    try:
        prediction = estimate_peak(model, step)
    except DataDependentModelError:
        return None
    return (prediction.gpu if device.type == "cuda" else prediction.cpu).total


class _CheckFiniteLoss(Callback):
    """Stops a training whose loss is no number, before it is written anywhere."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not torch.isfinite(pl_module.loss):
            raise GeotuneError(
                f"the loss is {float(pl_module.loss)} in epoch {trainer.current_epoch + 1}, batch "
                f"{batch_idx + 1} ({', '.join(batch.names[:3])} ...); try a lower train.lr, or "
                "train.precision=32-true"
            )


def _silence_lightning() -> None:
    """Keep what Lightning says to its developers from its users' screens."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
    warnings.filterwarnings("ignore", message=".*when logging on epoch level in distributed.*")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
