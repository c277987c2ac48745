r"""MoLoRA, a mixture of LoRA experts (arXiv 2309.05444).

    y = W x + b + (alpha / rank) sum_e g_e(x) B_e A_e x        g(x) = softmax(R x + r)

      x --+--> W, b (frozen) -------------------------------> + --> y
          |--> A_1 --> g_1 --> B_1 --\                        |
          |--> ...                    + --> alpha / rank -----/
          \--> A_k --> g_k --> B_k --/

Every token weights all k experts by a router R of its own layer. B starts at zero. The update
depends on the input, so it cannot be merged. In linear layers only, by default those of `lora`.
There is no load-balancing loss: every expert receives a gradient from every token.
"""

from __future__ import annotations

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import MoloraOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import zero_init
from geotune.methods.core.layer_updates import LayerUpdate, update_layers
from geotune.methods.core.target_layers import Layer, target_layers


class Molora(MoloraOptions, Method):
    """Several low-rank updates of each linear layer, weighted by a router for each token."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        layers = target_layers(
            backbone, self.targets, method="molora", convolutions=False, rank=self.rank
        )
        update_layers(
            backbone,
            layers,
            lambda _, layer: LoraExperts(layer, self.experts, self.rank, self.alpha),
        )
        return checked_encoder(backbone, self)


class LoraExperts(LayerUpdate):
    """The formula above, of a linear layer."""

    def __init__(self, layer: Layer, experts: int, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape
        self.experts, self.scale = experts, alpha / rank
        self.router = nn.Linear(inputs, experts)
        self.a = nn.Linear(inputs, experts * rank, bias=False)
        self.b = zero_init(nn.Linear(experts * rank, outputs, bias=False))

    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """See `LayerUpdate.forward`."""
        gates = self.router(x).softmax(-1)
        inner = self.a(x).unflatten(-1, (self.experts, -1)) * gates[..., None]
        y: Tensor = layer(x) + self.scale * self.b(inner.flatten(-2))
        return y
