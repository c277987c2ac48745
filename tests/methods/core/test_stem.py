"""The stem: a convolutional branch on the image."""

from __future__ import annotations

import pytest
import torch

from geotune.methods.core.stem import Stem


@pytest.mark.parametrize("size", [(32, 48), (13, 22)])
def test_maps_have_strides_one_two_and_four(size: tuple[int, int]) -> None:
    stem = Stem(bands=5, width=8)
    assert [(tap.name, tap.channels, tap.stride) for tap in stem.taps] == [
        ("stem1", 2, 1.0),
        ("stem2", 8, 2.0),
        ("stem4", 16, 4.0),
    ]
    maps = stem(torch.randn(2, 5, *size))
    for tap, feature in zip(stem.taps, maps, strict=True):
        rows, columns = (-(-side // int(tap.stride)) for side in size)
        assert feature.shape == (2, tap.channels, rows, columns)


def test_fine_detail_stays_in_place() -> None:
    stem = Stem(bands=1, width=4).eval()
    image = torch.zeros(1, 1, 32, 32)
    spot = image.clone()
    spot[..., 20, 8] = 10
    with torch.no_grad():
        for before, after, stride in zip(stem(image), stem(spot), (1, 2, 4), strict=True):
            rows, columns = (after - before).abs().sum((0, 1)).nonzero().unbind(1)
            assert len(rows), stride
            for changed, position in ((rows, 20), (columns, 8)):
                centre = (changed.min() + changed.max()) / 2 * stride
                assert abs(float(centre) - position) <= 2 * stride
                assert changed.max() - changed.min() <= 6
