"""Automatic mixed precision by the name of a training precision."""

from __future__ import annotations

import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of `train.precision` on a device.

    float16 is used for `16-mixed` on CUDA only; other devices use bfloat16 in its place.
    """
    half = precision == "16-mixed" and device.type == "cuda"
    dtype = torch.float16 if half else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "32-true")
