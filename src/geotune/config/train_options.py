"""Options of the training: the recipe's `train` section."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from geotune.config.base import OptionsModel, Share, invalid
from geotune.config.units import ByteSize

Logger = Literal["tensorboard", "csv", "mlflow", "wandb"]


class TrainOptions(OptionsModel):
    """Duration, optimisation, memory and devices of a training."""

    run: Path | None = Field(
        default=None, description="run folder; by default runs/<recipe's name>"
    )
    start_from: Path | None = Field(
        default=None,
        description="run or adapter, or hub:ORG/NAME[@REVISION], whose trained tensors the "
        "training starts from, of the same backbone, method, decoder and task",
    )
    epochs: PositiveInt = Field(
        default=20, description="rounds of data.samples windows, then validation"
    )
    batch_size: PositiveInt = Field(default=16, description="windows per step, over all devices")
    accumulate_steps: PositiveInt = Field(
        default=1,
        description="micro-batches per step, to save memory with the same gradient; only Dice "
        "losses, batch norm and dropout depend on it",
    )
    lr: PositiveFloat = Field(default=1e-3, description="peak learning rate")
    backbone_lr: PositiveFloat | None = Field(
        default=None,
        description="learning rate of the backbone's own weights; by default lr / 10 for methods "
        "that train whole weights (full, partial), otherwise lr",
    )
    layer_decay: Share = Field(
        default=1.0,
        gt=0,
        description="factor of the backbone's learning rate from each block to the one before it, "
        "such as 0.75 for full fine-tuning; 1: equal rates",
    )
    weight_decay: NonNegativeFloat = Field(
        default=0.05,
        description="of layers' weights; norms, biases, tokens and position embeddings: 0",
    )
    decay_all: bool = Field(
        default=False, description="weight decay for every trained parameter, as in plain AdamW"
    )
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine", description="learning-rate schedule after the warmup"
    )
    warmup: Share = Field(default=0.05, description="fraction of all steps with linear warmup")
    grad_clip_norm: NonNegativeFloat = Field(
        default=1.0, description="maximum norm of the gradient; 0: no clipping"
    )
    activation_checkpointing: Literal["auto", "none", "decoder", "all"] = Field(
        default="auto",
        description="activations recomputed in the backward pass: none; those of stem, side "
        "network and decoder; or also those of the backbone's blocks; auto: none, and more if "
        "memory does not suffice",
    )
    memory_budget: ByteSize | None = Field(
        default=None,
        description="maximum memory of the training, such as 8GB; the recipe is changed to fit, as "
        "`geotune plan` proposes",
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        default="auto",
        description="numeric precision; auto: bf16-mixed if the device computes bf16 fast, else "
        "32-true",
    )
    cache: Literal["none", "memory", "disk"] = Field(
        default="none",
        description="where to cache the features of a frozen backbone, computed once",
    )
    cache_folder: Path = Field(default=Path("cache"), description="folder of the cache on disk")
    cache_precision: Literal["bf16", "fp32", "int8"] = Field(
        default="bf16", description="data type of cached features"
    )
    cache_limit: ByteSize | None = Field(
        default=None,
        description="maximum size of the cache, such as 20GB; by default the free space",
    )
    compile: bool = Field(
        default=False, description="torch.compile the blocks of a frozen backbone"
    )
    skip_bad_samples: bool = Field(
        default=False,
        description="skip unusable scenes, chips or images, at most 5 %, and list them in the run "
        "and its report; otherwise they are errors",
    )
    patience: PositiveInt | None = Field(
        default=None,
        description="stop after this many epochs without improvement; by default never",
    )
    monitor: str | None = Field(
        default=None,
        description="metric that selects the best epoch, or loss, that of the validation split; by "
        "default the task's main metric",
    )
    validate_every: PositiveInt = Field(
        default=1,
        description="validate after the first epoch, every so many epochs, and after the last; "
        "patience still counts epochs",
    )
    validation_windows: PositiveInt | None = Field(
        default=None,
        description="validate epochs on at most so many windows, evenly spaced; the best epoch is "
        "then evaluated on all; by default on all",
    )
    keep_checkpoint: bool = Field(
        default=True,
        description="keep the last checkpoint of a finished run, to train more epochs later: about "
        "four times the size of the adapter",
    )
    loggers: list[Logger] = Field(
        default=["tensorboard"],
        description="where metrics go: tensorboard, csv (history.csv, which every run has), "
        "mlflow, wandb",
    )
    drop_last: bool = Field(
        default=False, description="skip the last batch of an epoch if it is smaller"
    )
    seed: NonNegativeInt = Field(default=0, description="of the random number generators")
    workers: NonNegativeInt = Field(default=0, description="data-loading processes per device")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(
        default="auto", description="compute device; auto: the fastest one"
    )
    devices: PositiveInt | Literal["auto"] = Field(default="auto", description="devices per node")
    nodes: PositiveInt = Field(default=1, description="machines")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="across processes: each holds the whole model (auto, ddp), or it is sharded "
        "(fsdp)",
    )

    def validates(self, epoch: int) -> bool:
        """Whether an epoch, from 0, ends with a validation."""
        last = epoch + 1
        return epoch == 0 or last % self.validate_every == 0 or last == self.epochs

    @model_validator(mode="after")
    def _consistent(self) -> TrainOptions:
        if self.batch_size % self.accumulate_steps:
            raise invalid(
                "train.batch_size",
                f"found {self.batch_size}, expected a multiple of train.accumulate_steps "
                f"({self.accumulate_steps})",
            )
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise invalid(
                "train.strategy",
                "fsdp does not support the gradient scaling of train.precision 16-mixed; use "
                "bf16-mixed or 32-true",
            )
        return self
