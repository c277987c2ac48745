"""Split a fused layer of queries, keys and values, so that methods can adapt them separately.

qkv(x) = [W_q x + b_q, W_k x + b_k, W_v x + b_v]        one layer of 3 d outputs, or three of d
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_INTERLEAVED = ("head_first", "key_dim")
"""Attributes of attention whose fused outputs are ordered by head first (MaxViT, TinyViT)."""


class SplitQkv(nn.Module):
    """The three layers of a fused one; their outputs are concatenated."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            _linear(weight, bias)
            for weight, bias in zip(
                fused.weight.chunk(3),
                (None,) * 3 if fused.bias is None else fused.bias.chunk(3),
                strict=True,
            )
        )
        if not getattr(fused, "has_key_bias", True):
            self.k.register_parameter("bias", None)
        self._fused = [fused]  # in a list, so that it is no submodule
        fused.weight, fused.bias = None, None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` to `(..., 3 d)`."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)

    def join(self) -> nn.Linear:
        """The fused layer with the present weights."""
        layers = (self.q, self.k, self.v)
        fused = self._fused[0]
        trains = self.q.weight.requires_grad
        fused.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), trains)
        if self.q.bias is not None:
            bias = [
                torch.zeros_like(self.q.bias) if layer.bias is None else layer.bias.detach()
                for layer in layers
            ]
            fused.bias = nn.Parameter(torch.cat(bias), trains)
        return fused


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer with copies of a weight and bias."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias is not None, device="meta")  # draws no random numbers
    trains = weight.requires_grad
    layer.weight = nn.Parameter(weight.detach().clone(), trains)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), trains)
    return layer


def is_fused_qkv(model: nn.Module, name: str) -> bool:
    """Whether a layer computes queries, keys and values, one third of its outputs each."""
    layer = model.get_submodule(name)
    parent, _, last = name.rpartition(".")
    attention = model.get_submodule(parent)
    return (
        last == "qkv"
        and isinstance(layer, nn.Linear)
        and layer.out_features % 3 == 0
        and layer.out_features != 2 * layer.in_features  # keys and values only (GCViT)
        and not any(getattr(attention, attribute, False) for attribute in _INTERLEAVED)
    )


def split_qkv(model: nn.Module, name: str) -> dict[str, nn.Linear]:
    """Split a fused layer in place; returns its queries and values by name."""
    fused = model.get_submodule(name)
    assert isinstance(fused, nn.Linear)
    split = SplitQkv(fused)
    model.set_submodule(name, split)
    return {f"{name}.q": split.q, f"{name}.v": split.v}


def join_all_qkv(model: nn.Module) -> None:
    """Undo every split, with the present weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, SplitQkv):
            model.set_submodule(name, module.join())
