"""Measure whether a device is slow with frozen weights in fewer bits.

They are converted to the precision of the computation in every forward and backward pass, which
takes little time unless the conversion or the precision is emulated.
"""

from __future__ import annotations

import math
import time
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn

from geotune.config.method_options import Precision
from geotune.methods.core.quantization import quantize_layer
from geotune.utils.precision import autocast

MAX_FACTOR = 3.0
"""A proposed setting is at most so many times slower."""
MAX_ROUNDS, MAX_SECONDS = 4, 0.1
"""Limits of the timing, after two rounds, of which the first prepares the kernels."""


@cache
def frozen_factor(frozen: Precision, precision: str, device: torch.device) -> float:
    """Time of a small frozen layer relative to one in float32, the larger one of two kinds.

    A linear layer and a convolution, forward and backward, the minimum of several rounds. Measured
    once per process, in a fraction of a second; on a CPU as the time of one thread.

    Args:
        frozen: `method.frozen_precision`.
        precision: `train.precision`, resolved.
        device: to measure on.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(), torch.enable_grad(), autocast(device, precision):
            return max(
                _seconds(deepcopy(layer), x.to(device), frozen)
                / _seconds(layer, x.to(device), "fp32")
                for layer, x in (
                    (nn.Linear(384, 384), torch.ones(256, 384)),
                    (nn.Conv2d(64, 64, 3, padding=1), torch.ones(4, 64, 16, 16)),
                )
            )
    finally:
        torch.set_num_threads(threads)


def _seconds(layer: nn.Module, x: Tensor, frozen: Precision) -> float:
    """Of a forward and backward pass through the layer's input."""
    layer = layer.to(x.device).requires_grad_(False)
    if frozen != "fp32":
        quantize_layer(layer, frozen)
    x.requires_grad_()
    best, start = math.inf, time.perf_counter()
    for number in range(MAX_ROUNDS):
        best = min(best, _round(layer, x))
        if number and time.perf_counter() - start > MAX_SECONDS:
            break
    return best


def _round(layer: nn.Module, x: Tensor) -> float:
    clock = time.thread_time if x.device.type == "cpu" else time.perf_counter
    start = clock()
    layer(x).sum().backward()
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return clock() - start
