"""Frozen weights held in fewer bits: bfloat16, or int8 with one scale for each output.

    W = s q        q: int8 in -127 ... 127;  s = max |row of W| / 127

The weights of frozen linear layers and convolutions, which are nearly all of a backbone's bytes,
are held so and brought to the precision of the computation one layer at a time, forward and again
backward, so that no second copy of the backbone is ever there. (torchao rounds linear layers to the
same int8, and leaves convolutions, which are all of a ResNet, as they are.) Biases, norms and
embeddings stay as they are, and so does all that trains.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import Precision
from geotune.errors import GeotuneError
from geotune.methods.core.injection import is_inserted


def quantize_frozen(backbone: Backbone, precision: Precision) -> None:
    """Hold the frozen weights of a backbone in fewer bits.

    Raises `GeotuneError` where all of them train.
    """
    layers = [
        layer
        for layer in backbone.model.modules()
        if type(layer) in _KINDS
        and getattr(layer, "padding_mode", "zeros") == "zeros"
        and not isinstance(getattr(layer, "padding", 0), str)
        and not layer.weight.requires_grad
        and not is_inserted(layer)
    ]
    if not layers:
        raise GeotuneError(
            f"method.frozen_precision {precision}: no layer of {backbone.name} is frozen by this "
            "method; use fp32"
        )
    for layer in layers:
        _hold(layer, precision)


class _QuantizedWeight(nn.Module):
    """Goes in front of a layer's own class; `weight` is what is held, brought to full precision."""

    held: Tensor
    scale: Tensor | None
    shape_of_bias: tuple[int, ...]

    @property
    def weight(self) -> Tensor:
        """As the layer's own was."""
        return self.weight_in(torch.float32)

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """The weight in the precision of a computation."""
        weight = self.held.to(dtype)
        return weight if self.scale is None else weight.mul_(self.scale.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            out: Tensor = _Apply.apply(x, self)
            bias: Any = self.bias
            if bias is not None:  # it may train
                out = out.add_(bias.to(out.dtype).view(self.shape_of_bias))
        return out


class _QuantizedLinear(_QuantizedWeight, nn.Linear):  # type: ignore[override]
    shape_of_bias = (-1,)

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def compute_back(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        return gradient @ weight


class _QuantizedConv2d(_QuantizedWeight, nn.Conv2d):  # type: ignore[override]
    shape_of_bias = (-1, 1, 1)

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def compute_back(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(()).expand(shape),  # what it was computed from is not read
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0, 0),
            self.groups,
            (True, False, False),
        )[0]
        return found


_KINDS: dict[type[nn.Module], type[_QuantizedWeight]] = {
    nn.Linear: _QuantizedLinear,
    nn.Conv2d: _QuantizedConv2d,
}


class _Apply(torch.autograd.Function):
    """A layer whose weight is brought to full precision again on the way back, and not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        out: Tensor = layer.compute(x, layer.weight_in(x.dtype))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        weight = ctx.layer.weight_in(gradient.dtype)
        return ctx.layer.compute_back(gradient, ctx.shape, weight), None


def _hold(layer: Any, precision: Precision) -> None:
    weight = layer.weight.detach()
    del layer.weight
    layer.__class__ = _KINDS[type(layer)]
    scale = None
    if precision == "int8":
        scale = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True) / 127
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        weight = (weight / scale).round().to(torch.int8)
    layer.register_buffer("held", weight if precision == "int8" else weight.to(torch.bfloat16))
    layer.register_buffer("scale", scale)
