"""Store frozen weights in fewer bits: bfloat16, or int8 with one scale for each output channel.

    W = s q        q: int8 in -127 ... 127;  s = max |row of W| / 127

Applies to frozen linear layers and convolutions, which hold nearly all of a backbone's bytes. One
layer at a time is converted to the precision of the computation, and again in the backward pass,
so a full-precision copy of the backbone never exists. (torchao quantizes linear layers to the same
int8, but not convolutions, which are all of a ResNet.) Biases, norms, embeddings and trainable
parameters are unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import Precision
from geotune.methods.core.injection import is_inserted
from geotune.methods.core.method_errors import option_error


def quantize_frozen(backbone: Backbone, precision: Precision) -> None:
    """Quantize the frozen weights of a backbone in place.

    Raises `GeotuneError` if all of them train.
    """
    layers = [
        layer
        for layer in backbone.model.modules()
        if type(layer) in _QUANTIZED_TYPES
        and getattr(layer, "padding_mode", "zeros") == "zeros"
        and not isinstance(getattr(layer, "padding", 0), str)
        and not layer.weight.requires_grad
        and not is_inserted(layer)
    ]
    if not layers:
        problem = f"this method freezes no layer of {backbone.name}; use fp32"
        raise option_error("frozen_precision", precision, problem)
    for layer in layers:
        quantize_layer(layer, precision)


class _QuantizedWeight(nn.Module):
    """Mixin put in front of a layer's class; `weight` dequantizes the buffers."""

    held: Tensor
    scale: Tensor | None
    bias_shape: tuple[int, ...]

    @property
    def weight(self) -> Tensor:
        """The weight in float32."""
        return self.weight_in(torch.float32)

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """Dequantize the weight to a dtype."""
        weight = self.held.to(dtype)
        return weight if self.scale is None else weight.mul_(self.scale.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Same shapes as the original layer."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            out: Tensor = _QuantizedFunction.apply(x, self)
            bias: Any = self.bias
            if bias is not None:  # it may train
                out = out.add_(bias.to(out.dtype).view(self.bias_shape))
        return out


class _QuantizedLinear(_QuantizedWeight, nn.Linear):  # type: ignore[override]
    bias_shape = (-1,)

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def compute_input_grad(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        return gradient @ weight


class _QuantizedConv2d(_QuantizedWeight, nn.Conv2d):  # type: ignore[override]
    bias_shape = (-1, 1, 1)

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def compute_input_grad(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        input_grad: Tensor = torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(()).expand(shape),  # only its shape is read
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
        return input_grad


_QUANTIZED_TYPES: dict[type[nn.Module], type[_QuantizedWeight]] = {
    nn.Linear: _QuantizedLinear,
    nn.Conv2d: _QuantizedConv2d,
}


class _QuantizedFunction(torch.autograd.Function):
    """Dequantizes the weight in forward and again in backward, instead of saving it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        out: Tensor = layer.compute(x, layer.weight_in(x.dtype))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        weight = ctx.layer.weight_in(gradient.dtype)
        return ctx.layer.compute_input_grad(gradient, ctx.shape, weight), None


def quantize_layer(layer: Any, precision: Precision) -> None:
    """Quantize the weight of a linear layer or convolution in place."""
    weight = layer.weight.detach()
    del layer.weight
    layer.__class__ = _QUANTIZED_TYPES[type(layer)]
    scale = None
    if precision == "int8":
        scale = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True) / 127
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        weight = (weight / scale).round().to(torch.int8)
    layer.register_buffer("held", weight if precision == "int8" else weight.to(torch.bfloat16))
    layer.register_buffer("scale", scale)


def dequantize_frozen(model: nn.Module) -> None:
    """Give quantized layers their weights in float32 again, with the same values, in place."""
    original = {quantized: plain for plain, quantized in _QUANTIZED_TYPES.items()}
    for layer in model.modules():
        plain = original.get(type(layer))  # type: ignore[arg-type]
        if plain is not None:
            weight = layer.weight.detach().clone()  # type: ignore[operator]
            del layer.held, layer.scale
            layer.__class__ = plain
            layer.weight = nn.Parameter(weight, requires_grad=False)
