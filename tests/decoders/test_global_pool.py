"""The decoder that answers for the image as a whole."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from geotune.config.decoder_options import GlobalPool as Section
from geotune.decoders.global_pool import GlobalPool
from geotune.types import FeatureMaps, Tap

TAPS = (Tap("stem.1", 8, 2), Tap("block.0", 6, 4), Tap("block.1", 10, 8))


def maps(batch: int = 3) -> FeatureMaps:
    torch.manual_seed(0)
    sides = [(tap.channels, int(32 / tap.stride)) for tap in TAPS]
    return FeatureMaps(tuple(torch.randn(batch, c, s, s) for c, s in sides), (32, 32))


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("levels", ["last", "all"])
def test_one_answer_an_image_to_which_every_map_it_reads_adds(pool: str, levels: str) -> None:
    decoder = GlobalPool(TAPS, 5, pool, levels)  # type: ignore[arg-type]
    found = maps()
    for x in found.maps:
        x.requires_grad_()
    outputs: Tensor = decoder(found)
    assert outputs.shape == (3, 5)
    outputs.square().sum().backward()
    read = [x.grad is not None for x in found.maps]
    assert read == [False, levels == "all", True], "the stem is never read"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def test_the_mean_is_that_of_all_places_and_attention_starts_as_it() -> None:
    mean, attention = GlobalPool(TAPS, 5), GlobalPool(TAPS, 5, "attention")
    attention.load_state_dict(mean.state_dict(), strict=False)
    found = maps()
    expected = mean.head(mean.norm(found.maps[2].mean((2, 3))))
    torch.testing.assert_close(mean(found), expected)
    torch.testing.assert_close(attention(found), expected)


def test_how_an_image_lies_does_not_matter() -> None:
    decoder, found = GlobalPool(TAPS, 5, "attention", "all"), maps()
    with torch.no_grad():
        for query in decoder.queries or ():
            query.normal_()
    turned = FeatureMaps(tuple(x.rot90(1, (2, 3)).flip(3) for x in found.maps), (32, 32))
    torch.testing.assert_close(decoder(turned), decoder(found))


def test_it_has_the_names_and_defaults_of_its_section() -> None:
    fields = {k: f.default for k, f in Section.model_fields.items() if k != "kind"}
    parameters = inspect.signature(GlobalPool).parameters
    ours = {n: p.default for n, p in parameters.items() if n not in ("taps", "num_outputs")}
    assert ours == fields


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one tap"):
        GlobalPool(TAPS[:1], 2)
    with pytest.raises(ValueError, match="pool is 'max'"):
        GlobalPool(TAPS, 2, "max")  # type: ignore[arg-type]
