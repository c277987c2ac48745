"""Lightning's trainer, adapted: devices, strategy, event files, checkpoints and messages."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only

from geotune.config import TrainOptions
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir
from geotune.training.step import num_devices
from geotune.training.tracker_logger import count_from_one

MAX_CLOSING_SECONDS = 2.0
"""Time for writing the last events of a training that failed or was interrupted."""


def make_trainer(
    train: TrainOptions,
    run_dir: RunDir,
    callbacks: list[Callback],
    trackers: Sequence[Logger] = (),
) -> Trainer:
    """Build the Lightning trainer, which logs to TensorBoard if requested, and to `trackers`.

    Raises `GeotuneError` if Lightning rejects the settings.
    """
    strategy: str | Strategy = train.strategy
    processes = num_devices(train)
    distributed = train.nodes > 1 or processes > 1 or train.strategy == "ddp"
    if train.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            data_parallel_size=train.nodes * processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, readable by any number of processes
        )
    elif distributed and train.strategy in ("auto", "ddp"):
        # processes validate different windows, so buffers are not broadcast in every forward pass
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
    assert train.precision != "auto"  # resolved before
    loggers = [*trackers]
    if "tensorboard" in train.loggers:
        loggers.insert(0, _TensorBoard(run_dir.path, name="tensorboard", version=""))
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
            plugins=[_StreamedCheckpoint()],
            logger=loggers or False,
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            sync_batchnorm=False,  # TrainingModule does
        )
    except (MisconfigurationException, ValueError) as error:
        raise GeotuneError(
            f"train.accelerator {train.accelerator}, train.devices {train.devices}, train.strategy "
            f"{train.strategy}, train.precision {train.precision}: {error}",
            code="settings-incompatible",
        ) from error


class _TensorBoard(TensorBoardLogger):
    """Counts from one, and does not wait for long for its thread after a failure.

    Ctrl+C may have hit in the middle of a queue operation, after which the thread may not notice
    for two minutes that it should end.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log metrics at the steps of `history.csv`."""
        super().log_metrics(*count_from_one(metrics, step))

    @rank_zero_only
    def save(self) -> None:
        """Write what is left, but no empty `hparams.yaml`: the run has its recipe."""
        super(TensorBoardLogger, self).save()

    def finalize(self, status: str) -> None:
        """Write what is left and close the file."""
        if status == "success":
            super().finalize(status)
            return
        closing = Thread(target=super().finalize, args=(status,), daemon=True)
        closing.start()
        closing.join(MAX_CLOSING_SECONDS)


class _StreamedCheckpoint(TorchCheckpointIO):
    """Writes tensors one by one; Lightning's own makes the whole file in memory first."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; `Checkpointer` makes that atomic."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)


def silence_lightning() -> None:
    """Hide messages of Lightning that do not concern users."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
    warnings.filterwarnings("ignore", message=".*when logging on epoch level in distributed.*")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
