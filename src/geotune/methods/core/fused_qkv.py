"""Split a fused layer of queries, keys and values, so that methods can adapt them separately.

qkv(x) = [W_q x + b_q, W_k x + b_k, W_v x + b_v]        one layer of 3 d outputs, or three of d

Most models order the outputs as above. Some order them by head first, `[q_1, k_1, v_1, q_2, ...]`
(MaxViT, TinyViT, EfficientFormer), and GCViT also has layers of keys and values only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FusedLayer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class QkvLayout:
    """The order of the outputs of a fused layer: for each of `groups`, queries, keys and values.

    Attributes:
        groups: number of heads if they are ordered first, else 1.
        widths: outputs of queries, keys and values in a group.
    """

    groups: int
    widths: tuple[int, int, int]

    @property
    def narrowest(self) -> int:
        """Outputs of the queries or values, whichever are fewer; without layers of no outputs."""
        return self.groups * min(width for width in self.widths[::2] if width)

    def split(self, outputs: Tensor) -> list[Tensor]:
        """Queries, keys and values of a tensor whose first dimension are all outputs."""
        groups = torch.unflatten(outputs, 0, (self.groups, -1))
        return [part.flatten(0, 1) for part in torch.split(groups, list(self.widths), dim=1)]

    def join(self, parts: list[Tensor], dim: int = 0) -> Tensor:
        """Reverse `split` along a dimension."""
        grouped = [torch.unflatten(part, dim, (self.groups, -1)) for part in parts]
        return torch.cat(grouped, dim + 1).flatten(dim, dim + 1)


class SplitQkv(nn.Module):
    """The layers of a fused one; their outputs are concatenated."""

    def __init__(self, fused: FusedLayer, layout: QkvLayout) -> None:
        super().__init__()
        weights = layout.split(fused.weight)
        biases = [None] * 3 if fused.bias is None else layout.split(fused.bias)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            if len(weight):
                self.add_module(name, _layer_like(fused, weight, bias))
        if not getattr(fused, "has_key_bias", True):
            self.get_submodule("k").register_parameter("bias", None)
        self._layout = layout
        self._fused = [fused]  # in a list, so that it is no submodule
        fused.weight, fused.bias = None, None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` to `(..., 3 d)`; `(B, C, H, W)` to `(B, 3 d, H, W)` for a convolution."""
        dim = 1 if isinstance(self._fused[0], nn.Conv2d) else x.ndim - 1
        return self._layout.join([layer(x) for layer in self.children()], dim)

    def join(self) -> FusedLayer:
        """The fused layer with the present weights."""
        layers: list[FusedLayer] = list(self.children())  # type: ignore[arg-type]
        fused = self._fused[0]
        trains = layers[0].weight.requires_grad
        weights = [layer.weight.detach() for layer in layers]
        fused.weight = nn.Parameter(self._layout.join(weights), trains)
        if layers[0].bias is not None:
            bias = [
                weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
                for layer, weight in zip(layers, weights, strict=True)
            ]
            fused.bias = nn.Parameter(self._layout.join(bias), trains)
        return fused


def _layer_like(fused: FusedLayer, weight: Tensor, bias: Tensor | None) -> FusedLayer:
    """A layer with copies of a weight and bias, with the settings of `fused`."""
    outputs, inputs = weight.shape[:2]
    layer: FusedLayer
    with torch.device("meta"):  # draws no random numbers
        if isinstance(fused, nn.Conv2d):
            layer = nn.Conv2d(inputs, outputs, 1, bias=bias is not None)
        else:
            layer = nn.Linear(inputs, outputs, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer


def qkv_layout(model: nn.Module, name: str) -> QkvLayout | None:
    """The layout of a layer that computes queries, keys and values; None if it is another layer."""
    parent, _, last = name.rpartition(".")
    layer, attention = model.get_submodule(name), model.get_submodule(parent)
    if last != "qkv" or not isinstance(layer, FusedLayer):
        return None
    if isinstance(layer, nn.Conv2d) and (layer.kernel_size, layer.groups) != ((1, 1), 1):
        return None
    outputs, inputs = layer.weight.shape[:2]
    heads = getattr(attention, "num_heads", 1)
    if getattr(attention, "head_first", False):  # MaxViT
        layout = QkvLayout(heads, (outputs // heads // 3,) * 3)
    elif key_dim := getattr(attention, "key_dim", 0):  # TinyViT, EfficientFormer
        layout = QkvLayout(heads, (key_dim, key_dim, outputs // heads - 2 * key_dim))
    elif getattr(attention, "use_global", False):  # GCViT: queries come from elsewhere
        layout = QkvLayout(1, (0, inputs, inputs))
    else:
        layout = QkvLayout(1, (outputs // 3,) * 3)
    return layout if layout.groups * sum(layout.widths) == outputs else None


def split_qkv(model: nn.Module, name: str, layout: QkvLayout) -> dict[str, FusedLayer]:
    """Split a fused layer in place; returns its queries and values by name."""
    fused = model.get_submodule(name)
    assert isinstance(fused, FusedLayer)
    split = SplitQkv(fused, layout)
    model.set_submodule(name, split)
    adapted: dict[str, FusedLayer] = dict(split.named_children())  # type: ignore[arg-type]
    return {f"{name}.{part}": layer for part, layer in adapted.items() if part != "k"}


def join_all_qkv(model: nn.Module) -> None:
    """Undo every split, with the present weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, SplitQkv):
            model.set_submodule(name, module.join())
