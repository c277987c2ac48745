"""What precision costs."""

from __future__ import annotations

import pytest
import torch

from geotune.utils.feature_encoding import DecodedFeatures, encode_features


def maps(scale: float = 1.0) -> torch.Tensor:
    """Maps whose channels differ a thousandfold, as those of transformers do."""
    generator = torch.Generator().manual_seed(0)
    widths = torch.logspace(-1, 2, 12)[:, None, None]
    return scale * widths * torch.randn(3, 12, 7, 5, generator=generator)


@pytest.mark.parametrize(("held", "allowed"), [("fp32", 0.0), ("bf16", 2**-8), ("int8", 0.01)])
def test_every_channel_keeps_its_digits(held: str, allowed: float) -> None:
    """Relative to the largest value of its channel in its map."""
    x = maps()
    kept = encode_features({"3.feature": x}, held)  # type: ignore[arg-type]
    back = DecodedFeatures(kept)["3.feature"]
    error = (back - x).abs().amax((-2, -1)) / x.abs().amax((-2, -1))
    assert back.dtype == torch.float32
    assert error.max() <= allowed
    bytes_each = {"fp32": 4, "bf16": 2, "int8": 1}[held]
    assert kept["3.feature"].nbytes == bytes_each * x.numel()


def test_maps_come_in_the_precision_of_the_computation() -> None:
    for held in ("bf16", "int8"):
        features = DecodedFeatures(encode_features({"0.mlp": maps()}, held))  # type: ignore[arg-type]
        with torch.autocast("cpu", torch.bfloat16):
            assert features["0.mlp"].dtype == torch.bfloat16
        assert features["0.mlp"].dtype == torch.float32


def test_scales_are_no_maps() -> None:
    features = DecodedFeatures(encode_features({"0.feature": maps(), "0.mlp": maps()}, "int8"))
    assert list(features) == ["0.feature", "0.mlp"] and len(features) == 2
    assert "0.mlp" in features and "0.attention" not in features


def test_a_map_of_zeros_stays_zero() -> None:
    assert not DecodedFeatures(encode_features({"0.feature": torch.zeros(1, 2, 3, 3)}, "int8"))[
        "0.feature"
    ].any()
