"""The compute device, and the versions of the libraries that determine a result."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import torch

from geotune.errors import GeotuneError

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


def device_name(device: torch.device) -> str:
    """A readable name of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that determine a result."""
    return {"python": platform.python_version()} | {name: installed(name) for name in VERSIONS}
