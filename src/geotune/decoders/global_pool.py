"""Global pooling decoder for image-level tasks: pool the maps, then a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geotune.config.decoder_options import GlobalPoolOptions
from geotune.decoders.pyramid import is_stem
from geotune.types import FeatureMaps, Tap


class GlobalPool(nn.Module):
    """Mean or attention pooling of the maps, layer norm, and a linear layer.

    Attention pooling uses a learned query `w`, with weights `softmax(w . x)` over the positions of
    a map, so that a class in a small part of the image is not averaged out. It is initialised as
    the mean.

    Class tokens are not used: side networks output maps only, so methods would not be comparable,
    and many backbones have none.
    """

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: GlobalPoolOptions) -> None:
        super().__init__()
        # the receptive field of the stem is too small for image-level classes
        used = [i for i, tap in enumerate(taps) if not is_stem(tap)]
        if not used:
            raise ValueError("the global_pool decoder needs at least one tap besides the stem")
        self._used = used if options.levels == "all" else used[-1:]
        widths = [taps[i].channels for i in self._used]
        self.queries = (
            nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)
            if options.pool == "attention"
            else None
        )
        self.norm = nn.LayerNorm(sum(widths))
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(sum(widths), num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to outputs `(B, K)`."""
        pooled = []
        for i, index in enumerate(self._used):
            x = features.maps[index].flatten(2)
            if self.queries is None:
                pooled.append(x.mean(dim=2))
            else:
                weights = torch.einsum("c,bcn->bn", self.queries[i], x).softmax(dim=1)
                pooled.append(torch.einsum("bn,bcn->bc", weights, x))
        outputs: Tensor = self.head(self.dropout(self.norm(torch.cat(pooled, dim=1))))
        return outputs
