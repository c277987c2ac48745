"""BitFit (arXiv 2106.10199): of the backbone, only the bias terms train.

y = W x + b        b trains, W does not
"""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.config.method_options import BitFitOptions
from geotune.methods.core.base import Encoder, Method
from geotune.methods.selective import train_subset


class BitFit(BitFitOptions, Method):
    """Of the backbone, only the bias terms train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a backbone without biases."""
        biases = {name for name, _ in backbone.model.named_parameters() if _is_bias(name)}
        return train_subset(backbone, self, biases)


def _is_bias(name: str) -> bool:
    """By its last word: `bias`, or what attention of three parts calls `q_bias` and `v_bias`."""
    last = name.rsplit(".", 1)[-1]
    return last in ("bias", "q_bias", "v_bias", "in_proj_bias")
