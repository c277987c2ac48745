"""The order of an image's values in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def for_convolutions(images: Tensor) -> Tensor:
    """Images `(B, C, H, W)` in the order in which convolutions are fast on their device.

    On a CPU that is channels last, which oneDNN needs no copies for; the maps that follow keep it.
    Other devices, other shapes and exported graphs keep their order.
    """
    if images.ndim != 4 or images.device.type != "cpu" or torch.compiler.is_exporting():
        return images
    return images.contiguous(memory_format=torch.channels_last)
