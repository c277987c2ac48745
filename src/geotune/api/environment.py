"""The compute device, and the versions of the libraries that determine a result."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import torch

from geotune.config import Recipe, TrainOptions
from geotune.config.method_options import Precision
from geotune.errors import GeotuneError
from geotune.methods.core.quantization_speed import MAX_FACTOR, frozen_factor
from geotune.training.step import num_devices
from geotune.utils.precision import (
    AUTO,
    FULL,
    MIXED,
    choose_precision,
    slow_precision_note,
    substitution_note,
)
from geotune.utils.text import pluralize

VERSIONS = ("torch", "torchvision", "timm", "peft", "lightning", "segmentation-models-pytorch")


def pick_device(accelerator: str) -> torch.device:
    """The device of an accelerator's name; `auto` takes GPU, MPS or CPU, in this order.

    Raises `GeotuneError` if this machine does not have it.
    """
    available = {
        "gpu": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        accelerator = next(name for name, usable in available.items() if usable)
    if not available[accelerator]:
        found = ", ".join(name for name, usable in available.items() if usable)
        raise GeotuneError(
            f"{accelerator}: this machine has none; available: {found}",
            code="device-missing",
            key="train.accelerator",
        )
    return torch.device("cuda" if accelerator == "gpu" else accelerator)


def resolve_precision(recipe: Recipe, *, saved: bool = False) -> tuple[Recipe, list[str]]:
    """Replace `train.precision: auto` by what the device computes fast.

    Args:
        recipe: parsed.
        saved: whether `auto` was already resolved when the run was started.

    Returns the recipe and notes for the user.
    """
    train = recipe.train
    device = _device_type(train)
    if train.precision != AUTO:
        notes = [f"train.precision: {train.precision} (auto; chosen when the run started)"] * saved
        if other := substitution_note(train.precision, device):
            notes.append(f"train.precision: {other}; say train.precision={MIXED} or {FULL}")
        if slow := slow_precision_note(train.precision, device):
            notes.append(f"{slow}; use {'--overwrite' if saved else 'train.precision=auto'}")
        return recipe, notes
    local_devices = num_devices(train)
    choice = choose_precision(device, devices=local_devices, processes=local_devices * train.nodes)
    notes = [f"train.precision: {choice.precision} (auto; {choice.reason})"]
    return recipe.with_train(precision=choice.precision), notes


def fast_frozen_precisions(train: TrainOptions) -> list[Precision]:
    """The values of `method.frozen_precision` that are not much slower than fp32, as measured.

    Not measured on MPS, and on a device that this machine does not have.
    """
    lower: list[Precision] = ["bf16", "int8"]
    device = _device_type(train)
    if device == "mps" or (device == "cuda" and not torch.cuda.is_available()):
        return lower
    return [
        name
        for name in lower
        if frozen_factor(name, train.precision, torch.device(device)) <= MAX_FACTOR
    ]


def _device_type(train: TrainOptions) -> str:
    """`cpu`, `cuda` or `mps`; a plan may name a device that this machine does not have."""
    if train.accelerator == "auto":
        return pick_device("auto").type
    return "cuda" if train.accelerator == "gpu" else train.accelerator


def device_name(device: torch.device) -> str:
    """A readable name of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = pluralize(torch.get_num_threads(), "thread")
    return f"{platform.processor() or platform.machine()} CPU, {threads}"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that determine a result."""
    return {"python": platform.python_version()} | {name: installed(name) for name in VERSIONS}
