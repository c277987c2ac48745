"""The global pooling decoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geotune.types import FeatureMaps, Tap
from helpers.components import make_decoder

TAPS = (Tap("stem.1", 8, 2), Tap("block.0", 6, 4), Tap("block.1", 10, 8))


def maps(batch: int = 3) -> FeatureMaps:
    torch.manual_seed(0)
    sides = [(tap.channels, int(32 / tap.stride)) for tap in TAPS]
    return FeatureMaps(tuple(torch.randn(batch, c, s, s) for c, s in sides), (32, 32))


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("levels", ["last", "all"])
def test_one_output_per_image_that_depends_on_the_selected_maps(pool: str, levels: str) -> None:
    decoder = make_decoder("global_pool", TAPS, 5, pool=pool, levels=levels)
    features = maps()
    for x in features.maps:
        x.requires_grad_()
    outputs: Tensor = decoder(features)
    assert outputs.shape == (3, 5)
    outputs.square().sum().backward()
    used = [x.grad is not None for x in features.maps]
    assert used == [False, levels == "all", True], "the stem is never used"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def test_attention_pooling_starts_as_mean_pooling() -> None:
    mean = make_decoder("global_pool", TAPS, 5)
    attention = make_decoder("global_pool", TAPS, 5, pool="attention")
    attention.load_state_dict(mean.state_dict(), strict=False)
    features = maps()
    pooled = torch.cat([x.mean((2, 3)) for x in features.maps[1:]], dim=1)
    expected = mean.head(mean.norm(pooled))
    torch.testing.assert_close(mean(features), expected)
    torch.testing.assert_close(attention(features), expected)


def test_output_does_not_depend_on_the_orientation() -> None:
    decoder = make_decoder("global_pool", TAPS, 5, pool="attention")
    features = maps()
    with torch.no_grad():
        for query in decoder.queries or ():
            query.normal_()
    rotated = FeatureMaps(tuple(x.rot90(1, (2, 3)).flip(3) for x in features.maps), (32, 32))
    torch.testing.assert_close(decoder(rotated), decoder(features))


def test_encoder_without_maps_besides_the_stem_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one tap"):
        make_decoder("global_pool", TAPS[:1], 2)
