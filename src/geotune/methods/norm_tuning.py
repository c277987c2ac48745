"""Of the backbone, only the normalisation layers train (arXiv 2003.00152 for batch norm).

y = w (x - mean) / std + b        w and b train; the statistics of batch norm stand still
"""

from __future__ import annotations

from torch import nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import NormOptions
from geotune.methods.core.base import Encoder, Method
from geotune.methods.selective import train_subset

_KINDS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.RMSNorm)


class Norm(NormOptions, Method):
    """Of the backbone, only the normalisation layers' scales and shifts train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a backbone without normalisation."""
        chosen = {
            f"{name}.{own}"
            for name, module in backbone.model.named_modules()
            if isinstance(module, _KINDS) or _is_norm(module)
            for own, _ in module.named_parameters(recurse=False)
        }
        return train_subset(backbone, self, chosen)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module that is none of PyTorch's is called a normalisation by its class."""
    return type(module).__name__.lower().endswith(("layernorm", "rmsnorm", "layernorm2d"))
