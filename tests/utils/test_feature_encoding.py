"""Encoding of cached features: error, size and dtype of each precision."""

from __future__ import annotations

import pytest
import torch

from geotune.utils.feature_encoding import DecodedFeatures, encode_features


def maps(scale: float = 1.0) -> torch.Tensor:
    """Maps whose channels differ by a factor of a thousand, as in transformers."""
    generator = torch.Generator().manual_seed(0)
    widths = torch.logspace(-1, 2, 12)[:, None, None]
    return scale * widths * torch.randn(3, 12, 7, 5, generator=generator)


BOUNDS = {"fp32": 0.0, "bf16": 2**-8, "int8": 0.01}


@pytest.mark.parametrize("precision", BOUNDS)
def test_relative_error_is_bounded_in_every_channel(precision: str) -> None:
    x = maps()
    encoded = encode_features({"3.feature": x}, precision)  # type: ignore[arg-type]
    decoded = DecodedFeatures(encoded)["3.feature"]
    error = (decoded - x).abs().amax((-2, -1)) / x.abs().amax((-2, -1))
    assert decoded.dtype == torch.float32
    assert error.max() <= BOUNDS[precision]
    value_bytes = {"fp32": 4, "bf16": 2, "int8": 1}[precision]
    assert encoded["3.feature"].nbytes == value_bytes * x.numel()


def test_maps_are_decoded_to_the_autocast_dtype() -> None:
    for precision in ("bf16", "int8"):
        features = DecodedFeatures(encode_features({"0.mlp": maps()}, precision))  # type: ignore[arg-type]
        with torch.autocast("cpu", torch.bfloat16):
            assert features["0.mlp"].dtype == torch.bfloat16
        assert features["0.mlp"].dtype == torch.float32


def test_scales_are_not_listed_as_maps() -> None:
    features = DecodedFeatures(encode_features({"0.feature": maps(), "0.mlp": maps()}, "int8"))
    assert list(features) == ["0.feature", "0.mlp"] and len(features) == 2
    assert "0.mlp" in features and "0.attention" not in features


def test_zero_map_stays_zero() -> None:
    assert not DecodedFeatures(encode_features({"0.feature": torch.zeros(1, 2, 3, 3)}, "int8"))[
        "0.feature"
    ].any()
