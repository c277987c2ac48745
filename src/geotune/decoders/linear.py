"""Linear probe of the feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from geotune.config.decoder_options import LinearOptions
from geotune.decoders.base import classifier_conv, resize, spatial_size
from geotune.decoders.pyramid import selected_taps
from geotune.types import FeatureMaps, Tap


class Linear(nn.Module):
    """A convolution on the maps, without a pyramid or hidden layers.

    Equivalent to resizing all maps bilinearly to the finest, concatenating and convolving them.
    Each map is projected first, which commutes with resizing and needs far less memory.

    With `upsample` P, a transposed convolution of kernel and stride P gives every position of a map
    PxP outputs of its own, from C x K x P^2 weights: with the patch size of a ViT, each pixel of a
    patch has its own linear probe (`LinearDecoder` of TerraTorch, arXiv 2503.20563). With
    `upsample: stride`, P is the stride of each map, as in the head of SimMIM (arXiv 2111.09886).
    """

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: LinearOptions) -> None:
        super().__init__()
        self._used = used = selected_taps(taps, options.levels)
        self._finest = used.index(min(used, key=lambda i: taps[i].stride))
        # The outputs are summed, so one bias is enough.
        self.projections = nn.ModuleList(
            _projection(
                taps[i].channels,
                num_outputs,
                max(1, round(taps[i].stride)) if options.upsample == "stride" else options.upsample,
                bias=i == used[0],
            )
            for i in used
        )

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)`.

        `(h, w)` is the size of the finest used map, times its `upsample`.
        """
        projected = [
            projection(features.maps[i])
            for i, projection in zip(self._used, self.projections, strict=True)
        ]
        size = spatial_size(projected[self._finest])
        logits: Tensor = resize(projected[0], size)
        for x in projected[1:]:
            logits = logits + resize(x, size)
        return logits


def _projection(channels: int, num_outputs: int, upsample: int, *, bias: bool) -> nn.Module:
    if upsample == 1:
        return classifier_conv(channels, num_outputs, bias=bias)
    return nn.ConvTranspose2d(channels, num_outputs, upsample, stride=upsample, bias=bias)
