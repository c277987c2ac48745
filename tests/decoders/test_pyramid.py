"""The pyramid: strictly increasing strides from any tap list, using every map."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geotune.decoders.pyramid import Pyramid
from geotune.types import Tap


def taps(*strides: float, stem: tuple[int, ...] = (), channels: int = 8) -> list[Tap]:
    return [Tap(f"stem{s}", 4, s) for s in stem] + [
        Tap(f"block{i}", channels, s) for i, s in enumerate(strides)
    ]


def shape_of(pyramid: Pyramid) -> list[tuple[float, int]]:
    return [(tap.stride, tap.channels) for tap in pyramid.taps]


@pytest.mark.parametrize(
    ("given_taps", "levels"),
    [
        (taps(16, 16, 16, 16), [(4, 2), (8, 4), (16, 8), (32, 8)]),
        (taps(14, 14, 14, 14), [(3.5, 2), (7, 4), (14, 8), (28, 8)]),
        (taps(8, 8, 8, 8), [(2, 2), (4, 4), (8, 8), (16, 8)]),
        (taps(4, 4, 4, 4), [(1, 2), (2, 4), (4, 8), (8, 8)]),
        (taps(2, 2, 2, 2), [(1, 4), (2, 16), (4, 8)]),
        (taps(1, 1), [(1, 8), (2, 8)]),
        (taps(16), [(4, 2), (8, 4), (16, 8), (32, 8)]),
        (taps(16, 16), [(4, 2), (8, 4), (16, 8), (32, 8)]),
        (taps(*[16] * 8), [(4, 2), (8, 4), (16, 16), (32, 16)]),
        (taps(4, 8, 16, 32), [(4, 8), (8, 8), (16, 8), (32, 8)]),
        (taps(16, 16, 16, 16, stem=(1, 2, 4)), [(1, 4), (2, 4), (4, 6), (8, 4), (16, 8), (32, 8)]),
        (taps(8, 8, 8, 8, stem=(1, 2, 4)), [(1, 4), (2, 6), (4, 8), (8, 8), (16, 8)]),
        (taps(4, 8, 16, 32, stem=(1, 2, 4)), [(1, 4), (2, 4), (4, 12), (8, 8), (16, 8), (32, 8)]),
        (taps(14, 14, stem=(1, 2, 4)), [(1, 4), (2, 4), (3.5, 6), (7, 4), (14, 8), (28, 8)]),
        (taps(4, 4, 8, 8), [(4, 16), (8, 16)]),
    ],
)
def test_levels(given_taps: list[Tap], levels: list[tuple[float, int]]) -> None:
    assert shape_of(Pyramid(given_taps)) == levels


def test_maps_of_increasing_strides_are_unchanged() -> None:
    maps = [torch.randn(1, 8, n, n) for n in (16, 8, 4)]
    pyramid = Pyramid(taps(4, 8, 16))
    assert not list(pyramid.parameters())
    assert all(a is b for a, b in zip(pyramid(maps), maps, strict=True))


def test_plain_vit_has_terratorchs_layers() -> None:
    steps = Pyramid(taps(16, 16, 16, 16, channels=32)).steps
    first, second, third, fourth = steps
    kinds = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.GELU, nn.ConvTranspose2d]
    assert [type(m) for m in first] == kinds
    assert (first[0].out_channels, first[3].out_channels, second.out_channels) == (16, 8, 16)
    assert isinstance(third, nn.Identity) and isinstance(fourth, nn.MaxPool2d)


def test_each_level_depends_on_its_own_map() -> None:
    maps = [torch.full((1, 8, 4, 4), float(i)) for i in range(4)]
    pyramid = Pyramid(taps(16, 16, 16, 16)).eval()
    before = pyramid(maps)
    for i in range(4):
        after = pyramid([x + 1 if k == i else x for k, x in enumerate(maps)])
        changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert changed == [k == i for k in range(4)]


def test_map_of_one_pixel_is_pooled() -> None:
    levels = Pyramid(taps(16, 16, 16, 16)).eval()([torch.randn(1, 8, 1, 1)] * 4)
    assert [tuple(x.shape[-2:]) for x in levels] == [(4, 4), (2, 2), (1, 1), (1, 1)]


@settings(deadline=None, max_examples=60)
@given(
    stride=st.integers(1, 40),
    count=st.integers(1, 13),
    stem=st.sampled_from([(), (1,), (1, 2), (1, 2, 4)]),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
)
def test_any_plain_encoder_becomes_a_pyramid(
    stride: int, count: int, stem: tuple[int, ...], rows: int, columns: int
) -> None:
    given_taps = taps(*[stride] * count, stem=stem, channels=4)
    pyramid = Pyramid(given_taps).eval()
    strides = [tap.stride for tap in pyramid.taps]
    assert strides[0] >= 1 and all(a < b for a, b in pairwise(strides))
    height, width = rows * stride, columns * stride
    maps = [
        torch.randn(
            1, tap.channels, math.ceil(height / tap.stride), math.ceil(width / tap.stride)
        ).requires_grad_()
        for tap in given_taps
    ]
    levels = pyramid(maps)
    assert [x.shape[1] for x in levels] == [tap.channels for tap in pyramid.taps]
    for x, tap in zip(levels, pyramid.taps, strict=True):
        assert x.shape[-2:] == (math.ceil(height / tap.stride), math.ceil(width / tap.stride))
    sum((x * torch.randn_like(x)).sum() for x in levels).backward()
    for tap, x in zip(given_taps, maps, strict=True):
        assert x.grad is not None and x.grad.abs().sum() > 0, tap.name
