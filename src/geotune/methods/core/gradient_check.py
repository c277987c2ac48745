"""Whether what is to train can change the output: found out before a training, not after it."""

from __future__ import annotations

import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.config.method_options import MethodOptions
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.reader import Reader, SelectedFeatures


def probe_loss(encoder: Encoder) -> Tensor:
    """A random sum of an encoder's maps of a small random image; the same one every time."""
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            size = 2 * encoder.backbone.size_divisor
            inputs = {k: v.to(device) for k, v in encoder.backbone.example(size, size).items()}
            total = sum((m * torch.randn(m.shape).to(m)).sum() for m in encoder(**inputs).maps)
    finally:
        encoder.train(training)
    assert isinstance(total, Tensor)
    return total


def dead_parameters(encoder: Encoder) -> list[str]:
    """Names of trainable parameters that no gradient reaches.

    One pass forward and back on a small random image. A layer whose weights its owner reads
    without calling it (as some attention blocks do) leaves an adapter around it dead; this finds
    out before anyone waits for a training that changes nothing.
    """
    names = encoder.trainable_names()
    parameters = dict(encoder.named_parameters())
    if not names:
        return []
    gradients = torch.autograd.grad(
        probe_loss(encoder), [parameters[n] for n in names], allow_unused=True
    )
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


def check_trainable(encoder: Encoder, called: str | None = None) -> Encoder:
    """The encoder, if a gradient reaches everything that should train.

    `called` is the method's name where it is not the one that recipes give it. Raises
    `GeotuneError` with the list of dead layers.
    """
    dead = dead_parameters(encoder)
    if dead:
        method = called or (encoder.method.name if encoder.method else "this method")
        layers = sorted({name.rsplit(".", 1)[0] for name in dead})
        raise GeotuneError(
            f"{method} on {encoder.backbone.name}: {len(layers)} attached layers cannot change the "
            f"output, because the model reads their weights without calling them: "
            f"{', '.join(layers[:8])}{' ...' if len(layers) > 8 else ''}; choose other layers or "
            "another method"
        )
    return encoder


def checked_encoder(
    backbone: Backbone,
    method: MethodOptions,
    reader: Reader | None = None,
    *,
    backbone_frozen: bool = False,
) -> Encoder:
    """Build an encoder and check it by `check_trainable`.

    By default it hands on the backbone's own features (`SelectedFeatures`).
    """
    reader = reader or SelectedFeatures(backbone)
    return check_trainable(Encoder(backbone, reader, method, backbone_frozen=backbone_frozen))
