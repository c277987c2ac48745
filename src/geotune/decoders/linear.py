"""Linear probe of the feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from geotune.config.decoder_options import LinearOptions
from geotune.decoders.base import classifier_conv, resize, spatial_size
from geotune.decoders.pyramid import is_stem
from geotune.types import FeatureMaps, Tap


class Linear(nn.Module):
    """A 1x1 convolution on the maps, without a pyramid or hidden layers.

    Equivalent to resizing all maps bilinearly to the finest, concatenating and convolving them.
    Each map is projected first, which commutes with resizing and needs far less memory.
    """

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: LinearOptions) -> None:
        super().__init__()
        used = list(range(len(taps)))
        if options.levels == "last":
            used = [i for i in used if not is_stem(taps[i])][-1:]
        if not used:
            raise ValueError("the linear decoder needs at least one tap, found none")
        self._used = used
        self._finest = min(used, key=lambda i: taps[i].stride)
        # The logits are summed, so one bias is enough.
        self.projections = nn.ModuleList(
            classifier_conv(taps[i].channels, num_outputs, bias=i == used[0]) for i in used
        )

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)` at the size of the finest used map."""
        size = spatial_size(features.maps[self._finest])
        projected = [
            resize(projection(features.maps[i]), size)
            for i, projection in zip(self._used, self.projections, strict=True)
        ]
        logits: Tensor = projected[0]
        for x in projected[1:]:
            logits = logits + x
        return logits
