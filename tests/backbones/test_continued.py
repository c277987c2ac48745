"""`backbone.safetensors` of a continued pretraining, for every class of backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import geotune
from geotune.adapter_io import save_tensors
from geotune.backbones.base import Backbone, fingerprint
from geotune.backbones.continued import ContinuedWeights, describe_weights, read_header
from geotune.types import Normalization

BANDS = ("B04", "B02", "B08", "B03")


def write(backbone: Backbone, path: Path, **changes: Any) -> ContinuedWeights:
    """Change the weights of a backbone and write them as `geotune pretrain` does."""
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.add_(0.01)
    weights = describe_weights(
        backbone,
        source="there",
        base_fingerprint=backbone.fingerprint,
        method="full",
        offset=(1.0, 2.0, 3.0, 4.0),
        scale=(5.0, 6.0, 7.0, 8.0),
        mean=(0.0, 1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0, 7.0),
        pixels=9,
        geotune="1",
        **changes,
    )
    save_tensors(path, backbone.model.state_dict(), weights.as_header())
    return weights


def test_every_class_of_backbone_reads_the_weights_back(
    make_backbone: Callable[..., Backbone], family: str, tmp_path: Path
) -> None:
    path = tmp_path / "backbone.safetensors"
    written = make_backbone(family, BANDS)
    before = written.fingerprint
    weights = write(written, path)
    assert read_header(path) == weights and weights.base_fingerprint == before
    read = make_backbone(family, BANDS, weights=path, pretrained=True)
    assert read.fingerprint == weights.fingerprint == fingerprint(written.model) != before
    images = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        pairs = zip(read.eval()(images).maps, written.eval()(images).maps, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert read.normalization == Normalization(BANDS, weights.offset, weights.scale)
    assert read.pretraining is not None and read.pretraining.std == weights.std
    assert (read.licence, read.random_weights) == (weights.licence, False)
    assert str(path) in read.source and "there" in read.source
    assert read.spec.weights == path


def test_the_order_of_bands_is_not_fitted_again(
    make_backbone: Callable[..., Backbone], tmp_path: Path
) -> None:
    """Weights of three bands are else taken for red, green and blue."""
    path = tmp_path / "backbone.safetensors"
    written = make_backbone("resnet", ("B02", "B03", "B04"))
    save_tensors(
        path,
        written.model.state_dict(),
        describe_weights(
            written,
            source="",
            base_fingerprint="",
            method="full",
            offset=(0.0,) * 3,
            scale=(1.0,) * 3,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            pixels=1,
            geotune="1",
        ).as_header(),
    )
    read = make_backbone("resnet", ("B02", "B03", "B04"), weights=path)
    assert read.fingerprint == written.fingerprint


def test_other_files_have_no_header(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_tensors(path, {"a": torch.zeros(1)})
    assert read_header(path) is None
    assert read_header(tmp_path / "missing.safetensors") is None
    path.write_bytes(b"damaged")
    assert read_header(path) is None
    with pytest.raises(geotune.GeotuneError) as caught:
        geotune.backbone("timm/test_vit", bands=3, weights=path)
    assert caught.value.code == "file-unreadable"
