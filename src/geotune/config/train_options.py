"""The section of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from geotune.config.base import OptionsModel, Share, invalid
from geotune.config.units import Size


class TrainOptions(OptionsModel):
    """How long, how fast, on what."""

    run: Path | None = Field(None, description="run folder; by default runs/<recipe's name>")
    epochs: PositiveInt = 20
    batch_size: PositiveInt = Field(16, description="windows a step, over all devices")
    accumulate_steps: PositiveInt = Field(
        1, description="parts in which a step's batch is computed"
    )
    lr: PositiveFloat = 1e-3
    backbone_lr: PositiveFloat | None = Field(
        None,
        description="for the backbone's own weights; by default a tenth of lr where a method "
        "trains whole weights (full, partial), else lr",
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: Share = Field(0.05, description="share of all steps with a rising rate")
    grad_clip_norm: Annotated[float, Field(ge=0)] = Field(1.0, description="gradient norm; 0: none")
    activation_checkpointing: Literal["none", "decoder", "all"] = Field(
        "decoder",
        description="what is computed again in the backward pass in place of being kept: nothing, "
        "the stages of stem, side network and decoder, or the backbone's blocks, too",
    )
    memory_budget: Size | None = Field(
        None,
        description="most memory that training may take, such as 8GB; what `geotune plan` proposes "
        "first is changed to fit",
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto",
        description="numeric precision; auto: bf16-mixed if the device computes bf16 fast, else "
        "32-true",
    )
    cache: Literal["none", "memory", "disk"] = Field(
        "none",
        description="where the features of a backbone that never changes are kept, so that each "
        "window is computed once",
    )
    cache_folder: Path = Field(Path("cache"), description="of the features on the disk")
    cache_precision: Literal["bf16", "fp32", "int8"] = Field(
        "bf16", description="in which features are kept"
    )
    cache_limit: Size | None = Field(
        None,
        description="most that the cache may take, such as 20GB; by default what is free",
    )
    compile: bool = Field(
        False, description="compile the blocks of a backbone that never changes, by torch.compile"
    )
    skip_bad_samples: bool = Field(
        False,
        description="leave out scenes, chips or images that cannot be used, at most 5 %, and list "
        "them in the run and its report; by default they are refused",
    )
    patience: PositiveInt | None = Field(
        None, description="epochs without a better metric before it stops; by default never"
    )
    monitor: str | None = Field(None, description="metric of the best epoch; by default the task's")
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        description="of several processes: each holds the whole model (ddp, also auto), or they "
        "part it among them (fsdp)",
    )

    @model_validator(mode="after")
    def _fits(self) -> TrainOptions:
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
