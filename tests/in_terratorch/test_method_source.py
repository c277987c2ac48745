"""geotune's methods as backbones of TerraTorch's registry and factory."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geotune.errors import GeotuneError
from geotune.registry import METHODS
from geotune.terratorch import autoload
from helpers.errors import raises

pytest.importorskip("terratorch")

from geotune.terratorch.encoder import TerraTorchEncoder
from geotune.terratorch.method_source import geotune_name, register

BANDS = ["RED", "GREEN", "NIR_NARROW"]


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it
    register()
    register()


def build(name: str, **options: Any) -> TerraTorchEncoder:
    from terratorch.registry import BACKBONE_REGISTRY

    options = {"pretrained": False, "bands": BANDS, **options}
    encoder: TerraTorchEncoder = BACKBONE_REGISTRY.build(name, **options)
    return encoder


def model(backbone: str, decoder: str = "FCNDecoder", **options: Any) -> Any:
    from terratorch.registry import MODEL_FACTORY_REGISTRY

    factory: Any = MODEL_FACTORY_REGISTRY.build("EncoderDecoderFactory")
    own = {"decoder_channels": 8} if decoder == "FCNDecoder" else {}
    options = {"backbone_pretrained": False, "backbone_bands": BANDS, **own, **options}
    return factory.build_model(
        "segmentation", backbone=backbone, decoder=decoder, num_classes=2, **options
    )


def images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, 48, generator=torch.Generator().manual_seed(0))


def test_the_registry_knows_methods_with_backbones_of_every_provider() -> None:
    from terratorch.registry import BACKBONE_REGISTRY

    for known in ("est__prithvi_eo_v2_300", "earth_adapter__resnet18", "lst__rslearn_galileo_nano"):
        assert f"geotune_{known}" in BACKBONE_REGISTRY
    for unknown in ("est__no_such_model", "esst__prithvi_eo_v2_300", "est_prithvi_eo_v2_300"):
        assert f"geotune_{unknown}" not in BACKBONE_REGISTRY
    names = {name for name in BACKBONE_REGISTRY if name.startswith("geotune_")}
    assert {f"geotune_{method}__prithvi_eo_v2_300" for method in METHODS} < names
    assert geotune_name("rslearn_galileo_nano") == "rslearn/galileo_nano"
    assert geotune_name("timm_resnet18") == geotune_name("resnet18") == "timm/resnet18"


@pytest.mark.parametrize("method", ["est", "mona", "frozen"])
def test_only_the_method_trains_and_frozen_weights_stay(method: str) -> None:
    network = model(f"geotune_{method}__prithvi_eo_tiny")
    network.freeze_encoder()
    encoder = network.encoder
    before = {name: p.clone() for name, p in encoder.named_parameters() if not p.requires_grad}
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert bool(trained) == (method != "frozen")
    network.train()
    network(images()).output.square().mean().backward()
    gradients = {p: p.grad for p in trained if p.grad is not None}  # of the map that is decoded
    assert bool(gradients) == (method != "frozen")
    with torch.no_grad():
        for parameter, gradient in gradients.items():
            parameter -= 0.1 * gradient
    for name, parameter in encoder.named_parameters():
        if name in before:
            assert parameter.grad is None and torch.equal(parameter, before[name]), name


def test_freezing_leaves_nothing_of_full_to_train() -> None:
    encoder = build("geotune_full__timm_test_resnet", bands=None, in_chans=3)
    assert all(p.requires_grad for p in encoder.parameters())
    encoder.freeze()
    encoder.train()
    assert not any(p.requires_grad for p in encoder.parameters())
    statistics = {name: x.clone() for name, x in encoder.named_buffers()}
    encoder(images())
    assert all(torch.equal(x, statistics[name]) for name, x in encoder.named_buffers())


def test_maps_are_those_of_geotune_and_a_state_dict_restores_them() -> None:
    import geotune

    first = model("geotune_est__prithvi_eo_tiny", backbone_reduction=4).eval()
    method = geotune.Est(reduction=4, stem_width=0)
    own = geotune.attach(
        geotune.backbone("terratorch/prithvi_eo_tiny", bands=BANDS, pretrained=False), method
    ).eval()
    own.load_state_dict(first.encoder.encoder.state_dict())
    maps = first.encoder(images())
    assert [x.shape[1] for x in maps] == first.encoder.out_channels
    torch.testing.assert_close(maps, list(own(images()).maps), rtol=0, atol=0)
    second = model("geotune_est__prithvi_eo_tiny", backbone_reduction=4).eval()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.1)
    assert not torch.equal(second(images()).output, first(images()).output)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(images()).output, first(images()).output)


def test_necks_and_a_pyramid_decoder_take_the_maps() -> None:
    necks = [{"name": "ReshapeTokensToImage"}, {"name": "LearnedInterpolateToPyramidal"}]
    network = model(
        "geotune_est__prithvi_eo_tiny", "UNetDecoder", necks=necks, decoder_channels=[32, 16, 8, 4]
    )
    assert network(images(96)).output.shape == (2, 2, 96, 48)


def test_dates_and_metadata_are_converted() -> None:
    encoder = build(
        "geotune_frozen__prithvi_eo_v2_tiny_tl",
        bands=["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"],
        num_frames=2,
        coords_encoding=["time", "location"],
    ).eval()
    seen: dict[str, Tensor] = {}
    hook = encoder.encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    encoder(
        torch.randn(1, 6, 2, 32, 32),
        temporal_coords=torch.tensor([[[2020.0, 0.0], [2020.0, 364.0]]]),
        location_coords=torch.tensor([[50.0, 10.0]]),
        image_size=(32, 32),
    )
    hook.remove()
    assert seen["time"].tolist() == [[[2020, 1], [2020, 365]]]
    assert seen["location"].tolist() == [[10, 50]]


def test_modalities_have_their_bands() -> None:
    encoder = build("geotune_est__terramind_v1_tiny", bands=None, modalities=["S2L2A", "S1GRD"])
    modalities = encoder.encoder.backbone.modalities
    assert len(modalities["S2L2A"]) == 12 and modalities["S1GRD"] == ("VV", "VH")
    maps = encoder({"S1GRD": torch.randn(1, 2, 32, 32), "S2L2A": torch.randn(1, 12, 32, 32)})
    assert isinstance(maps[0], Tensor) and isinstance(encoder, nn.Module)


@pytest.mark.parametrize(
    ("name", "options", "code", "mentions"),
    [
        (
            "est__prithvi_eo_tiny",
            {"reductoin": 4},
            "recipe-invalid",
            ["geotune_est__prithvi_eo_tiny", "reduction", "is backbone_reductoin in TerraTorch"],
        ),
        ("est__prithvi_eo_tiny", {"bands": ["RED", "THERMAL"]}, "band-unknown", ["THERMAL"]),
        ("est__no_such_model", {}, "backbone-unknown", ["no_such_model"]),
        (
            "est__prithvi_eo_tiny",
            {"projection_init": "pca"},
            "method-option-invalid",
            ["TerraTorch does not"],
        ),
    ],
)
def test_errors_name_the_option(
    name: str, options: dict[str, Any], code: str, mentions: list[str]
) -> None:
    with raises(code, mentions=mentions):
        build(f"geotune_{name}", **options)


def test_an_unknown_method_is_no_model_of_geotune() -> None:
    from terratorch.utils import InvalidModelError

    with pytest.raises(InvalidModelError, match="geotune_METHOD__BACKBONE"):
        build("geotune_esst__prithvi_eo_tiny")
    assert not issubclass(InvalidModelError, GeotuneError)


def test_the_hook_waits_for_the_registry_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    before = len(sys.meta_path)
    autoload.install()
    autoload.install()
    assert len(sys.meta_path) == before + 1
    assert sys.meta_path[0].find_spec("terratorch", None) is None
    assert len(sys.meta_path) == before + 1
