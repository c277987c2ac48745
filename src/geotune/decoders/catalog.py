"""Every decoder by the `kind` that a recipe gives it."""

from __future__ import annotations

from torch import nn

from geotune.decoders.fcn import Fcn
from geotune.decoders.linear import Linear
from geotune.decoders.pooled import Pooled
from geotune.decoders.unet import Unet
from geotune.decoders.upernet import Upernet

DECODERS: dict[str, type[nn.Module]] = {
    "linear": Linear,
    "fcn": Fcn,
    "unet": Unet,
    "upernet": Upernet,
    "pooled": Pooled,
}
"""Each is called as `DECODERS[kind](taps, num_outputs, **values)`."""
