r"""LoRA (arXiv 2106.09685), by HF peft, inside the backbone's own layers.

    y = W x + (alpha / rank) B A x        A: rank x inputs, random;  B: outputs x rank, zero

      x --+--> W (frozen) ---------------------> + --> y
          \--> A --> B --> alpha / rank --------/

By default on query, value and both layers of the MLP, as in arXiv 2504.17397 (a fused layer of
queries, keys and values is split); if no layer has such
a name, on all linear layers of the blocks; if there are none, on convolutions.
"""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.config.method_options import LoraOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.hf_peft_utils import build_encoder, inject_adapter
from geotune.methods.core.target_layers import target_layers


class Lora(LoraOptions, Method):
    """Low-rank updates of the backbone's linear layers and convolutions (HF peft)."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        from peft import LoraConfig

        layers = target_layers(backbone, self.targets, method="lora", rank=self.rank)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=list(layers),
            init_lora_weights=True,
        )
        inject_adapter(backbone, config, "lora")
        return build_encoder(backbone, "lora", self)
