"""Visual prompt tuning against its formulas; which backbones it supports."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.methods.core.encoder import Encoder
from geotune.methods.lora import Lora
from geotune.methods.vpt import PromptedBlock, Vpt
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

COUNT = 3


def prompted(backbone: Backbone, **options: Any) -> Encoder:
    torch.manual_seed(0)
    return Vpt(**{"num_prompts": COUNT, "stem_width": 0, **options}).attach(backbone).eval()


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 32, 48, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_maps_match_the_formulas(make_backbone: MakeBackbone, depth: str) -> None:
    """Concatenate, run the block, drop the prompts (deep) or carry them on (shallow)."""
    backbone = make_backbone("vit")
    model: Any = copy.deepcopy(backbone.model).eval()
    encoder = prompted(backbone, depth=depth)
    prompts = [p for name, p in encoder.named_parameters() if name.endswith("part.tokens")]
    assert len(prompts) == (6 if depth == "deep" else 1)
    assert encoder.trainable_names() == [
        f"backbone.model.blocks.{i}.part.tokens" for i in range(len(prompts))
    ]
    indices, expected = encoder.reader.out_indices, []
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(images()))
        z = prompts[0].expand(2, -1, -1)
        for index, block in enumerate(model.blocks):
            if depth == "deep":
                z = prompts[index].expand(2, -1, -1)
            z, x = block(torch.cat([z, x], 1)).split([COUNT, x.shape[1]], 1)
            if index in indices:
                last = model.norm(x) if index == 5 else x
                expected.append(last[:, 1:].transpose(1, 2).reshape(2, -1, 2, 3))
        actual = encoder(images()).maps
    torch.testing.assert_close(actual, tuple(expected), rtol=1e-5, atol=1e-6)


def test_prompts_are_initialised_as_in_the_paper(make_backbone: MakeBackbone) -> None:
    encoder = prompted(make_backbone("vit"), num_prompts=200)
    bound = math.sqrt(6 / (3 * 16 * 16 + 64))
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            assert parameter.shape == (200, 64)
            assert parameter.abs().max() <= bound
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_rotary_position_embeddings_skip_the_prompts(make_backbone: MakeBackbone) -> None:
    """With the prompts masked, attention equals that without prompts."""
    backbone = make_backbone("timm/small_eva02")
    before: Any = copy.deepcopy(backbone.blocks[0]).eval()
    block: Any = prompted(backbone).backbone.blocks[0]
    assert isinstance(block, PromptedBlock)
    model: Any = backbone.model
    with torch.no_grad():
        x, rope = model._pos_embed(model.patch_embed(torch.randn(2, 4, 28, 42)))
        assert rope is not None
        mask = torch.ones(COUNT + x.shape[1], COUNT + x.shape[1], dtype=torch.bool)
        mask[COUNT:, :COUNT] = False
        actual = block(x, rope=rope, attn_mask=mask)
        torch.testing.assert_close(actual, before(x, rope=rope), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(block(x, rope=rope), before(x, rope=rope), atol=1e-3)


def test_block_accepts_its_input_by_position_and_by_keyword(make_backbone: MakeBackbone) -> None:
    block = prompted(make_backbone("galileo")).backbone.blocks[1]
    x = torch.randn(2, 7, 128)
    with torch.no_grad():
        by_name = block(x=x, y=None, attn_mask=None)
        assert by_name.shape == x.shape
        assert torch.equal(by_name, block(x, None, None))


def test_no_carried_prompts_remain_after_a_pass(make_backbone: MakeBackbone) -> None:
    encoder = prompted(make_backbone("vit"), depth="shallow")
    maps = encoder(images()).maps
    blocks = encoder.backbone.blocks
    assert all(isinstance(block, PromptedBlock) for block in blocks)
    carried = {id(block.carried): block.carried for block in blocks}
    assert [one.tokens for one in carried.values()] == [None]  # type: ignore[union-attr]

    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
        assert not torch.equal(twin(images()).maps[-1], maps[-1])
        assert torch.equal(encoder(images()).maps[-1], maps[-1])


@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_dropout_is_applied_in_training_only(make_backbone: MakeBackbone, depth: str) -> None:
    encoder = prompted(make_backbone("vit"), depth=depth, dropout=0.5)

    def twice() -> bool:
        with torch.no_grad():
            return torch.equal(encoder(images()).maps[-1], encoder(images()).maps[-1])

    assert twice()
    encoder.train()
    assert not twice()


def test_pixel_sequence_models_are_supported(make_backbone: MakeBackbone) -> None:
    pytest.importorskip("rslearn")
    backbone = make_backbone("rslearn/presto")
    frozen = copy.deepcopy(backbone).eval()
    encoder = prompted(backbone)
    small = images()[..., :4, :5]
    with torch.no_grad():
        actual, expected = encoder(small).maps, frozen(small, taps=encoder.reader.out_indices).maps
    assert [m.shape for m in actual] == [m.shape for m in expected]
    assert not torch.allclose(actual[-1], expected[-1], atol=1e-3)


# ---------------------------------------------------------------- unsupported input
@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_attention_with_pairwise_position_biases_raises(
    make_backbone: MakeBackbone, depth: str
) -> None:
    backbone = make_backbone("timm/small_beit")
    plain = copy.deepcopy(backbone)
    with raises("method-unsupported", mentions=["vpt", "timm/small_beit"]):
        prompted(backbone, depth=depth)
    assert [type(m) for m in backbone.modules()] == [type(m) for m in plain.modules()]
    Lora(rank=2, stem_width=0).attach(backbone)  # the backbone was restored


def test_unwrap_restores_the_prefix_count(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("timm/small_eva02")
    attention: Any = backbone.blocks[0].attn
    expected = attention.num_prefix_tokens
    block: Any = prompted(backbone).backbone.blocks[0]
    assert block.attn.num_prefix_tokens == expected + COUNT
    assert block.unwrap().attn.num_prefix_tokens == expected


@pytest.mark.parametrize(
    ("option", "value"), [("num_prompts", 0), ("dropout", 1.0), ("depth", "middle")]
)
def test_invalid_option_raises(option: str, value: Any) -> None:
    with raises("recipe-invalid", key=f"method.{option}", mentions=[value]):
        Vpt(**{option: value})
