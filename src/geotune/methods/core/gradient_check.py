"""Check, before training, that every trainable parameter receives a gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import MethodOptions
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.injection import ChannelAxis
from geotune.methods.core.reader import Reader, SelectedFeatures
from geotune.utils.text import join_some, pluralize


def checked_encoder(
    backbone: Backbone,
    method: MethodOptions,
    reader: Reader | None = None,
    *,
    backbone_frozen: bool = False,
    name: str | None = None,
    merge: Callable[[nn.Module], None] | None = None,
) -> Encoder:
    """Build an encoder and run `check_trainable`; by default it reads `SelectedFeatures`.

    The trial also teaches inserted layers where their channels are, see `ChannelAxis`. `merge` is
    that of `Encoder`; it is dropped if the frozen weights are quantized, which loses the update.
    """
    encoder = Encoder(
        backbone,
        reader or SelectedFeatures(backbone),
        method,
        backbone_frozen=backbone_frozen,
        merge=merge if method.frozen_precision == "fp32" else None,
    )
    check_trainable(encoder, name)
    axes = (getattr(module, "axis", None) for module in encoder.modules())
    if any(isinstance(axis, ChannelAxis) and axis.doubtful for axis in axes):
        probe_loss(encoder, patches=3)
    return encoder


def check_trainable(encoder: Encoder, name: str | None = None) -> Encoder:
    """Return the encoder if all its trainable parameters receive a gradient.

    Raises `GeotuneError` with the layers that do not. `name` is the method's name in the message.
    """
    dead = dead_parameters(encoder)
    if dead:
        method = name or (encoder.method.name if encoder.method else "this method")
        layers = sorted({parameter.rsplit(".", 1)[0] for parameter in dead})
        count = pluralize(len(layers), "inserted layer")
        raise GeotuneError(
            f"{method} on {encoder.backbone.name}: {count} cannot change the output, because the "
            "model reads the weights of the adapted layers without calling them: "
            f"{join_some(layers, 8)}; choose other layers or another method",
            code="method-layers-dead",
            key="method.kind",
        )
    return encoder


def dead_parameters(encoder: Encoder) -> list[str]:
    """Return the names of trainable parameters that receive no gradient.

    Runs one forward and backward pass on a small random image. Some attention blocks read the
    weights of a layer without calling it; an adapter around such a layer would never train.
    """
    names = encoder.trainable_names()
    parameters = dict(encoder.named_parameters())
    if not names:
        return []
    gradients = torch.autograd.grad(
        probe_loss(encoder), [parameters[n] for n in names], allow_unused=True
    )
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


def freeze_dead_parameters(encoder: Encoder, prefix: str = "") -> None:
    """Freeze parameters that receive no gradient and whose names start with `prefix`."""
    for name in dead_parameters(encoder):
        if name.startswith(prefix):
            encoder.get_parameter(name).requires_grad_(False)


def probe_loss(encoder: Encoder, patches: int = 2) -> Tensor:
    """Compute a random weighted sum of the maps of a small random image, from a fixed seed.

    `patches`: its side, in the smallest divisor of an image.
    """
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            size = patches * encoder.backbone.size_divisor
            inputs = {k: v.to(device) for k, v in encoder.backbone.example(size, size).items()}
            total = sum((m * torch.randn(m.shape).to(m)).sum() for m in encoder(**inputs).maps)
    finally:
        encoder.train(training)
    assert isinstance(total, Tensor)
    return total
