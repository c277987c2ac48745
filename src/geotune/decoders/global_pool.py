"""One answer an image: maps pooled over the image, then a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from geotune.decoders.pyramid import is_stem
from geotune.types import FeatureMaps, Tap


class GlobalPool(nn.Module):
    """The mean of each map over the image, or its mean by attention; normed, then a linear layer.

    Attention is that of a learned query, `softmax(w . x)` over the places of a map: an image whose
    class lies in a corner is not drowned by the rest. It starts as the plain mean.

    Class tokens are not read: side networks hand on maps alone, so that methods could not be
    compared, and many backbones have none.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        num_outputs: int,
        pool: Literal["mean", "attention"] = "mean",
        levels: Literal["last", "all"] = "last",
        dropout: float = 0.0,
    ) -> None:
        """`levels="last"` reads the encoder's last map, `"all"` every map but the stem's.

        The stem's maps see too little of the image to tell what it is as a whole.
        """
        super().__init__()
        used = [i for i, tap in enumerate(taps) if not is_stem(tap)]
        if not used:
            raise ValueError("the pooled decoder needs at least one tap to read, found none")
        if pool not in ("mean", "attention"):
            raise ValueError(f"pool is {pool!r}, expected 'mean' or 'attention'")
        self._used = used if levels == "all" else used[-1:]
        widths = [taps[i].channels for i in self._used]
        self.queries = (
            nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)
            if pool == "attention"
            else None
        )
        self.norm = nn.LayerNorm(sum(widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(widths), num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to outputs `(B, K)`."""
        parts = []
        for at, index in enumerate(self._used):
            places = features.maps[index].flatten(2)
            if self.queries is None:
                parts.append(places.mean(dim=2))
            else:
                scores = torch.einsum("c,bcn->bn", self.queries[at], places).softmax(dim=1)
                parts.append(torch.einsum("bn,bcn->bc", scores, places))
        outputs: Tensor = self.head(self.dropout(self.norm(torch.cat(parts, dim=1))))
        return outputs
