"""Cached features replace the backbone in forward and backward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune import Est, attach
from geotune.backbones.base import Backbone
from geotune.methods.core.encoder import Encoder, encode_together
from helpers.method_cases import METHODS

MakeBackbone = Callable[..., Backbone]

frozen_backbone_methods = pytest.mark.parametrize(
    "method", [name for name, case in METHODS.items() if case.backbone_frozen]
)


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 21, 34, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def build(make_backbone: MakeBackbone) -> Callable[..., Encoder]:
    """Builds an encoder with random trained parameters; skips unsupported pairs."""

    def encoder(family: str, method: str) -> Encoder:
        case = METHODS[method]
        if family in case.unsupported:
            pytest.skip(f"{method} does not fit {family}")
        torch.manual_seed(0)
        built = attach(make_backbone(family), case.method.model_copy(update={"stem_width": 4}))
        if built.reader.calibration_samples:
            built.calibrate([{"images": images(seed=5)}])
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape)
        return built

    return encoder


def gradients(encoder: Encoder, maps: tuple[Tensor, ...]) -> list[Tensor]:
    trained = [p for p in encoder.parameters() if p.requires_grad]
    total = torch.stack([m.square().mean() for m in maps]).sum()
    return list(torch.autograd.grad(total, trained))


@frozen_backbone_methods
def test_cached_features_give_the_same_maps_and_gradients(
    build: Callable[..., Encoder], family: str, method: str
) -> None:
    encoder = build(family, method)
    cached = encoder.features(images())
    streamed = encoder(images())
    expected = gradients(encoder, streamed.maps)

    def runs(*_: object, **__: object) -> None:
        raise AssertionError("the backbone runs")

    with encoder.without_backbone():
        encoder.backbone.run = runs  # type: ignore[method-assign]
        replayed = encoder(images(), features=cached)
        actual = gradients(encoder, replayed.maps)
    assert replayed.image_size == streamed.image_size
    for one, other in zip(streamed.maps, replayed.maps, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(one, other)


@frozen_backbone_methods
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_cached_features_of_any_precision_train_under_autocast(
    build: Callable[..., Encoder], method: str, stored: torch.dtype
) -> None:
    encoder = build("vit", method)
    with torch.autocast("cpu", torch.bfloat16):
        streamed = encoder(images())
        cached = {name: x.to(stored) for name, x in encoder.features(images()).items()}
        replayed = encoder(images(), features=cached)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(encoder, replayed.maps))
    for one, other in zip(streamed.maps, replayed.maps, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=0.05, atol=0.05)


@frozen_backbone_methods
def test_every_cached_feature_is_read(
    build: Callable[..., Encoder], family: str, method: str
) -> None:
    """Changing any one of them changes the maps."""
    encoder = build(family, method)
    cached = encoder.features(images())
    streamed = encoder(images()).maps
    for name in cached:
        changed = {**cached, name: torch.randn_like(cached[name])}
        maps = encoder(images(), features=changed).maps
        assert not all(map(torch.equal, maps, streamed)), name


@frozen_backbone_methods
def test_without_backbone_restores_the_modules(
    build: Callable[..., Encoder], family: str, method: str
) -> None:
    encoder = build(family, method).train()
    names = [name for name, _ in encoder.named_parameters()]
    state = list(encoder.state_dict())
    backbone = encoder.backbone
    own = {id(p) for p in backbone.parameters()}
    shared = {id(p) for layer in encoder.reader.shared_layers() for p in layer.parameters()}
    with pytest.raises(KeyError), encoder.without_backbone():
        inside = {id(p) for p in encoder.parameters()}
        assert inside & own == shared
        assert encoder.backbone is backbone
        encoder.train()
        assert not any(module.training for module in backbone.modules())
        raise KeyError
    assert [name for name, _ in encoder.named_parameters()] == names
    assert list(encoder.state_dict()) == state
    assert encoder.backbone is backbone


def test_without_backbone_moving_the_encoder_does_not_move_the_backbone(
    make_backbone: MakeBackbone,
) -> None:
    encoder = Est(stem_width=4, min_width=8).attach(make_backbone("vit"))
    with encoder.without_backbone():
        encoder.to("meta")
    assert {p.device.type for p in encoder.backbone.parameters()} == {"cpu"}
    assert {p.device.type for p in encoder.reader.parameters()} == {"meta"}


def test_fixed_projections_reduce_the_cached_size(make_backbone: MakeBackbone) -> None:
    """By the ratio of stream to tap width; with `output: sum` not at the levels, which are read."""

    def cached_numbers(**options: object) -> int:
        encoder = Est(stem_width=0, min_width=8, **options).attach(make_backbone("vit"))
        return sum(maps.numel() for maps in encoder.features(images()).values())

    backbone = make_backbone("vit")
    full = cached_numbers()
    assert full == cached_numbers(projection_init="pca")
    assert cached_numbers(projection_init="pca_fixed", reduction=8) * 8 == full
    assert len(backbone.taps) == 6
    levels = 4 / 6 + 2 / 6 / 8
    assert cached_numbers(projection_init="pca_fixed", reduction=8, output="sum") == pytest.approx(
        levels * full
    )


def test_encoders_of_one_backbone_share_its_pass(
    build: Callable[..., Encoder], family: str
) -> None:
    fitting = [
        name
        for name, case in METHODS.items()
        if case.backbone_frozen and family not in case.unsupported
    ]
    encoders = [build(family, name) for name in fitting]
    with torch.no_grad():
        alone = [encoder(images()) for encoder in encoders]
    backbone, passes = encoders[0].backbone, 0
    run = backbone.run

    def counted(*args: Any, **options: Any) -> Tensor | None:
        nonlocal passes
        passes += 1
        return run(*args, **options)

    backbone.run = counted  # type: ignore[method-assign]
    for encoder in encoders:
        encoder.backbone = backbone
    together = encode_together(encoders, images())
    assert passes == 1 and len(together) == len(fitting) > 5
    for name, one, other in zip(fitting, alone, together, strict=True):
        assert one.image_size == other.image_size
        for expected, found in zip(one.maps, other.maps, strict=True):
            assert torch.allclose(expected, found, rtol=0, atol=1e-6), name
        assert (one.tokens is None) == (other.tokens is None)
        if one.tokens is not None and other.tokens is not None:
            assert torch.allclose(one.tokens, other.tokens, rtol=0, atol=1e-6), name
