"""Models built within `skip_init`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import geotune
from geotune.backbones.meta_init import init_is_skipped, skip_init


def test_shapes_and_taps_equal_those_of_an_initialised_model() -> None:
    full = geotune.backbone("timm/test_vit", bands=3, pretrained=False)
    with skip_init():
        assert init_is_skipped()
        empty = geotune.backbone("timm/test_vit", bands=3, pretrained=False)
    assert not init_is_skipped()
    assert empty.taps == full.taps and empty.fingerprint == "" != full.fingerprint
    shapes = [{n: (t.shape, t.dtype) for n, t in m.state_dict().items()} for m in (full, empty)]
    assert shapes[0] == shapes[1]


def test_large_parameters_are_not_initialised_by_any_call() -> None:
    def same(tensor: torch.Tensor) -> bool:
        before = tensor.detach().clone()
        nn.init.trunc_normal_(tensor)
        nn.init.kaiming_uniform_(tensor)
        with torch.no_grad():
            tensor.normal_().mul_(2)
        tensor.data.uniform_()
        return torch.equal(before, tensor)

    with skip_init():
        assert same(nn.Parameter(torch.zeros(300, 300)))
        assert not same(nn.Parameter(torch.zeros(10, 10)))
        assert torch.rand(300, 300).std() > 0.1  # tensors that are not parameters


def test_the_state_is_restored_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="broken"), skip_init():
        raise RuntimeError("broken")
    assert not init_is_skipped()
    assert nn.Linear(300, 300).weight.std() > 0
