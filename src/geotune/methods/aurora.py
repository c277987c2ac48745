"""Aurora, mode approximation of all weight updates (arXiv 2305.08381; PETAL, arXiv 2312.12458).

    dW_m = U (G x_3 p_m) V        U: C x R;  G: R x R x R;  V: R x C;  p_m: R values
    y = W x + b + scale x dW_m    in rows: x is 1 x C

U, G and V are shared by all layers, p_m belongs to one matrix. Queries, keys, values and projection
are matrices of C x C each; a wider layer of the MLP consists of several, one for each C of its
outputs, or of its inputs, for which G x_3 p_m is transposed. Dropout acts between G and V. V starts
at zero, all others are Xavier-uniform.

Choices of ours: in a hierarchical backbone each width C has its own U, G and V; layers whose sizes
are no multiples of C are not updated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import AuroraOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    add_shared_part,
    block_widths,
    check_width,
    require_blocks,
)
from geotune.methods.core.layer_updates import LayerUpdate, merge_updates, update_layers
from geotune.methods.core.method_errors import unsupported_error
from geotune.methods.core.target_layers import Layer, target_layers


class Aurora(AuroraOptions, Method):
    """Updates of all linear layers from factors that the layers share."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "aurora")
        check_width("rank", self.rank, backbone)
        linear = target_layers(backbone, None, method="aurora", convolutions=False, all_linear=True)
        width_of = {
            layer: width
            for block, width in zip(backbone.blocks, block_widths(backbone), strict=True)
            for layer in block.modules()
        }
        layers = {n: layer for n, layer in linear.items() if _fits(layer, width_of[layer])}
        if not layers:
            problem = "no linear layer of its blocks has sizes that are multiples of their width"
            raise unsupported_error("aurora", backbone.name, f"{problem}; choose lora or slr")
        widths = sorted({width_of[layer] for layer in layers.values()})
        factors = nn.ModuleDict({str(width): ModeFactors(width, self.rank) for width in widths})

        def build(_name: str, layer: Layer) -> ModeUpdate:
            shared = factors[str(width_of[layer])]
            assert isinstance(shared, ModeFactors)
            return ModeUpdate(layer, shared, self.scale, self.dropout)

        update_layers(backbone, layers, build)
        add_shared_part(backbone, factors)
        return checked_encoder(backbone, self, merge=merge_updates)


def _fits(layer: Layer, width: int) -> bool:
    """Whether the layer's weight consists of width x width matrices in one row or column."""
    outputs, inputs = layer.weight.shape
    return min(outputs, inputs) == width and max(outputs, inputs) % width == 0


class ModeFactors(nn.Module):
    """U, G and V of all layers of one width."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.empty(width, rank))
        self.core = nn.Parameter(torch.empty(rank, rank, rank))
        self.v = nn.Parameter(torch.zeros(rank, width))
        nn.init.xavier_uniform_(self.u)
        nn.init.xavier_uniform_(self.core)


class ModeUpdate(LayerUpdate):
    """The formula above, of a linear layer."""

    def __init__(self, layer: Layer, factors: ModeFactors, scale: float, dropout: float) -> None:
        super().__init__()
        self._factors = [factors]  # in a list, so that it is no submodule
        outputs, inputs = layer.weight.shape
        self.splits_inputs = inputs > outputs
        self.scale = scale
        self.modes = nn.Parameter(
            torch.empty(max(outputs, inputs) // len(factors.u), factors.u.shape[1])
        )
        nn.init.xavier_uniform_(self.modes)
        self.dropout = nn.Dropout(dropout)

    def _cores(self) -> Tensor:
        """`G x_3 p_m` of each matrix, `(matrices, R, R)`."""
        cores = torch.einsum("ijk,mk->mij", self._factors[0].core, self.modes)
        return cores.transpose(1, 2) if self.splits_inputs else cores

    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """See `LayerUpdate.forward`."""
        u, v = self._factors[0].u, self._factors[0].v
        if self.splits_inputs:
            parts = torch.unflatten(x, -1, (len(self.modes), -1)) @ u
            update = self.dropout(torch.einsum("...mi,mij->...j", parts, self._cores())) @ v
        else:
            parts = self.dropout(torch.einsum("...i,mij->...mj", x @ u, self._cores()))
            update = (parts @ v).flatten(-2)
        y: Tensor = layer(x) + self.scale * update
        return y

    def merge(self, layer: Layer) -> None:
        """See `LayerUpdate.merge`."""
        u, v = self._factors[0].u, self._factors[0].v
        updates = list((u @ self._cores() @ v).mT)  # each outputs x inputs
        layer.weight.add_(self.scale * torch.cat(updates, 1 if self.splits_inputs else 0))
