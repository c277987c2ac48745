"""The linear decoder: what a linear probe of the features can tell, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from geotune.decoders.base import classifier_conv, resize, spatial_size
from geotune.decoders.pyramid import is_stem
from geotune.types import FeatureMaps, Tap


class Linear(nn.Module):
    """One 1x1 convolution on the maps as they come, with no pyramid and no hidden layer.

    The same function as a 1x1 convolution on all maps resized bilinearly to the finest and
    concatenated; here each map is projected first, because a 1x1 convolution and a bilinear
    resize change places and logits are far smaller than features.
    """

    def __init__(
        self, taps: Sequence[Tap], num_outputs: int, levels: Literal["all", "last"] = "all"
    ) -> None:
        """`levels="last"` uses the backbone's last map only, `"all"` every map, stem included."""
        super().__init__()
        if levels not in ("all", "last"):
            raise ValueError(f"levels is {levels!r}, expected 'all' or 'last'")
        used = list(range(len(taps)))
        if levels == "last":
            used = [i for i in used if not is_stem(taps[i])][-1:]
        if not used:
            raise ValueError("the linear decoder needs at least one tap to read, found none")
        self._used = used
        self._finest = min(used, key=lambda i: taps[i].stride)
        # One bias is enough for a sum.
        self.projections = nn.ModuleList(
            classifier_conv(taps[i].channels, num_outputs, bias=i == used[0]) for i in used
        )

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)` at the size of the finest used."""
        size = spatial_size(features.maps[self._finest])
        parts = [
            resize(projection(features.maps[i]), size)
            for i, projection in zip(self._used, self.projections, strict=True)
        ]
        logits: Tensor = parts[0]
        for part in parts[1:]:
            logits = logits + part
        return logits
