"""Training a built recipe in a run folder."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from safetensors.torch import load_file

from geotune.adapter import load_adapter_state
from geotune.build.model import Built
from geotune.data.prepare import DataParts
from geotune.memory.measure import Peak, PeakWatch
from geotune.recipe import Train
from geotune.training.folder import RunFolder
from geotune.training.keeper import Keeper
from geotune.training.loaders import loader
from geotune.training.module import Training
from geotune.types import Batch, GeotuneError


@dataclass(frozen=True)
class Fitted:
    """What a training came to. The model holds the best epoch's weights.

    Attributes:
        best_epoch: from 0.
        went_on: whether it went on from the checkpoint of one that was cut off.
        main_process: false in the helper processes of a training on many devices.
    """

    history: list[dict[str, float]]
    best_epoch: int
    peak: Peak
    device: torch.device
    went_on: bool
    main_process: bool


def monitored(built: Built, train: Train) -> str:
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
    built: Built,
    data: DataParts,
    train: Train,
    folder: RunFolder,
    callbacks: Sequence[Callback] = (),
    begin: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train, going on from the folder's checkpoint where there is one.

    `begin` is called once the settings are known to fit together, before anything is written.
    Raises `GeotuneError` where they do not, and where the loss is not finite.
    """
    _quiet()
    monitor = monitored(built, train)
    keeper = Keeper(folder, f"val/{monitor}", train.patience)
    extra: list[Callback] = [keeper, *callbacks, _FiniteLoss()]
    trainer = _trainer(train, folder, extra)
    world, rank = trainer.world_size, trainer.global_rank
    micro = _micro_batch(train, world)
    if len(data.val) < world:  # a process without a window would leave the others waiting
        raise GeotuneError(
            f"train.devices: {world} processes, but the validation part has only {len(data.val)} "
            "windows; use fewer devices, a smaller data.window or more validation scenes"
        )
    share: dict[str, Any] = {"workers": train.workers, "rank": rank, "world": world, "pin": True}
    batches = loader(data.train, micro, **share)
    steps = -(-len(batches) // train.accumulate) * train.epochs
    module = Training(
        built.model,
        built.task,
        total_steps=steps,
        monitor=monitor,
        lr=train.lr,
        backbone_lr=train.backbone_lr,
        weight_decay=train.weight_decay,
        schedule=train.schedule,
        warmup=train.warmup,
        seed=train.seed,
    )
    module.strict_loading = False  # a checkpoint holds what trains, not the frozen weights
    begin()
    going_on = folder.last if folder.last.is_file() else None
    samples = built.model.encoder.reader.samples
    if samples:
        some = range(min(samples, len(data.train)))
        built.model.calibrate(Batch.of([data.train[i]]).inputs for i in some)
    watch = PeakWatch(trainer.strategy.root_device)
    validation = loader(data.val, micro, **share)
    alone = not torch.distributed.is_initialized()
    try:
        trainer.fit(module, batches, validation, ckpt_path=going_on, weights_only=True)
    except SystemExit as error:  # what Lightning makes of Ctrl+C, which it also turns off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from error
    if alone and torch.distributed.is_initialized():
        # what follows is the main process's alone: its metrics must not wait for the others
        torch.distributed.destroy_process_group()
    assert keeper.best_epoch is not None
    if trainer.is_global_zero:
        load_adapter_state(built.model, load_file(folder.best), str(folder.best))
    return Fitted(
        keeper.history,
        keeper.best_epoch,
        watch.peak(),
        trainer.strategy.root_device,
        going_on is not None,
        trainer.is_global_zero,
    )


def _trainer(train: Train, folder: RunFolder, callbacks: list[Callback]) -> Trainer:
    strategy: str | Strategy = train.strategy
    devices: Any = train.devices
    if devices == "auto":
        on_gpus = torch.cuda.is_available() and train.accelerator in ("auto", "gpu")
        devices = torch.cuda.device_count() if on_gpus else 1
    many = train.nodes > 1 or devices > 1 or train.strategy == "ddp"
    if many and train.strategy in ("auto", "ddp"):
        # each process validates its own windows, so buffers are not exchanged in every forward
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
    logger: Any = TensorBoardLogger(folder.path, name="tensorboard", version="")
    try:
        return Trainer(
            accelerator=train.accelerator,
            devices=devices,
            num_nodes=train.nodes,
            strategy=strategy,
            precision=train.precision,
            max_epochs=train.epochs,
            accumulate_grad_batches=train.accumulate,
            gradient_clip_val=train.clip or None,
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


def _micro_batch(train: Train, world: int) -> int:
    parts = train.accumulate * world
    if train.batch_size % parts:
        raise GeotuneError(
            f"train.batch_size {train.batch_size} is no multiple of train.accumulate x devices "
            f"({train.accumulate} x {world}); choose one that is"
        )
    return train.batch_size // parts


class _FiniteLoss(Callback):
    """Stops a training whose loss is no number, before it is written anywhere."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not torch.isfinite(outputs["loss"]).all():
            raise GeotuneError(
                f"the loss is {float(outputs['loss'])} in epoch {trainer.current_epoch + 1}, batch "
                f"{batch_idx + 1} ({', '.join(batch.names[:3])} ...); try a lower train.lr, or "
                "train.precision=32-true"
            )


def _quiet() -> None:
    """Keep what Lightning says to its developers from its users' screens."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
