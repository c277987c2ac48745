"""The device that computes, and the versions of what decides a result."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import torch

from geotune.errors import GeotuneError

VERSIONS = ("torch", "torchvision", "timm", "peft", "lightning", "segmentation-models-pytorch")


def pick_device(accelerator: str) -> torch.device:
    """The device that an accelerator's name stands for; `auto` takes the best there is.

    Raises `GeotuneError` for one that is not here.
    """
    here = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, there in here.items() if there)
    if not here[accelerator]:
        found = ", ".join(name for name, there in here.items() if there)
        raise GeotuneError(f"{accelerator}: there is none here; found {found}")
    return torch.device("cuda" if accelerator == "gpu" else accelerator)


def device_name(device: torch.device) -> str:
    """A device as people call it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {"python": platform.python_version()} | {name: installed(name) for name in VERSIONS}
