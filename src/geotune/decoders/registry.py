"""Every decoder by the `kind` that a recipe gives it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from geotune.decoders.fcn import Fcn
from geotune.decoders.global_pool import GlobalPool
from geotune.decoders.linear import Linear
from geotune.decoders.unet import Unet
from geotune.decoders.upernet import Upernet
from geotune.detectors.registry import DETECTORS

DECODERS: dict[str, Callable[..., nn.Module]] = {
    "linear": Linear,
    "fcn": Fcn,
    "unet": Unet,
    "upernet": Upernet,
    "global_pool": GlobalPool,
    **DETECTORS,
}
"""Each is called as `DECODERS[kind](taps, num_outputs, **values)`."""
