"""Batch norm with a single value per channel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from geotune.utils.batch_norm import allow_single_values


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
