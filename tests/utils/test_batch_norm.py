"""Batch norm with a single value per channel, and over several processes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import geotune
from geotune import Frozen, Full
from geotune.adapter_io import has_fixed_buffers
from geotune.config.decoder_options import UnetOptions
from geotune.decoders.unet import Unet
from geotune.methods.core.base import Method
from geotune.model import Model
from geotune.types import Normalization
from geotune.utils.batch_norm import allow_single_values, synchronize_batch_norm


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.BatchNorm2d(3), (1, 3, 1, 1)), (nn.BatchNorm1d(3), (1, 3))],
    ids=["2d", "1d"],
)
def test_single_values_use_the_running_statistics(layer: nn.Module, shape: tuple[int, ...]) -> None:
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    model = nn.Sequential(layer)
    allow_single_values(model)
    model = copy.deepcopy(model).train()
    several = torch.randn(4, *shape[1:])
    model(several)  # moves the running statistics
    norm = model[0]
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x = torch.randn(shape, requires_grad=True)
    y = model(x)
    y.sum().backward()
    view = (1, 3, *[1] * (len(shape) - 2))
    expected = (x - norm.running_mean.view(view)) / (norm.running_var.view(view) + norm.eps).sqrt()
    torch.testing.assert_close(y, expected)
    assert norm.training and x.grad is not None
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name]), name
    plain = nn.BatchNorm2d(3) if len(shape) == 4 else nn.BatchNorm1d(3)
    torch.testing.assert_close(model(several), plain(several))  # others are as in PyTorch
    assert model.eval()(x).shape == shape and not norm.training


@pytest.mark.parametrize("method", [Frozen(), Full()], ids=lambda method: method.kind)
def test_synchronized_batch_norm_keeps_the_activation_of_its_layer(method: Method) -> None:
    """timm's layers contain one, which PyTorch's own conversion drops: another network."""
    backbone = geotune.backbone("timm/efficientnet_lite0", bands=3, pretrained=False)
    encoder = method.attach(backbone)
    plain = Normalization(backbone.bands, (0.0,) * 3, (1.0,) * 3)
    model = Model(plain, encoder, Unet(encoder.taps, 2, UnetOptions(channels=[8]))).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
    names = [*model.state_dict()]
    fixed = {m for name, m in model.named_modules() if has_fixed_buffers(model, name, m)}
    for _ in range(2):
        synchronize_batch_norm(model, fixed)
    assert [*model.state_dict()] == names
    with torch.no_grad():
        torch.testing.assert_close(model(images), before)
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    of_backbone = {id(m) for m in backbone.modules()}
    for layer in layers:
        trains = method.kind == "full" or id(layer) not in of_backbone
        assert isinstance(layer, nn.SyncBatchNorm) == trains
        assert len(layer._forward_pre_hooks) == 1  # of single values
