"""LoRA in the layout of HF peft: peft opens it on the plain backbone and gives equal features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from geotune.adapter_config import AdapterConfig, load_adapter_config
from geotune.adapter_io import adapter_state
from geotune.api.sharing.peft_layout import CONFIG, TENSORS, write_peft
from geotune.backbones.base import Backbone
from geotune.config import parse_recipe
from geotune.factory.build_model import BuiltModel, build_training
from geotune.factory.save_model import save_model
from geotune.types import BandStatistics

BANDS = ("red", "green", "nir")
STATISTICS = BandStatistics(BANDS, (430.0, 460.0, 490.0), (75.0, 110.0, 150.0), 9)


@pytest.fixture
def trained(
    make_backbone: Callable[..., Backbone],
    tiny_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> Callable[..., tuple[BuiltModel, AdapterConfig]]:
    """A model with trained LoRA, and the config of its adapter."""
    make_backbone("vit")  # registers the small models

    def build(name: str, **method: Any) -> tuple[BuiltModel, AdapterConfig]:
        changes = {"backbone.name": name, "method": {"kind": "lora", "rank": 4, **method}}
        recipe = parse_recipe(tiny_values(changes))
        built = build_training(recipe, STATISTICS)
        torch.manual_seed(1)
        for parameter_name, parameter in built.model.named_parameters():
            if "lora_" in parameter_name:
                parameter.data.normal_(std=0.5)
        save_model(tmp_path / "adapter", built, recipe)
        return built, load_adapter_config(tmp_path / "adapter")

    return build


def features(model: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = model.eval().forward_features(images)
    return output


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("timm/test_vit", {}),
        ("timm/test_vit", {"alpha": 3.0, "targets": ["qkv"]}),
        ("timm/test_vit", {"targets": ["fc1"]}),
        ("timm/small_swin", {}),
        ("timm/test_convnext", {}),
        ("timm/test_resnet", {}),
        ("timm/small_eva02", {}),
        ("timm/tiny_vit_5m_224", {}),  # heads first in the fused layer
        ("timm/test_vit", {"kind": "peft", "tuner": "rslora"}),
        ("timm/test_vit", {"kind": "peft", "tuner": "lora", "options": {"lora_alpha": 5}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_peft_opens_it_with_equal_features(
    trained: Callable[..., tuple[BuiltModel, AdapterConfig]],
    make_backbone: Callable[..., Backbone],
    tmp_path: Path,
    name: str,
    method: dict[str, Any],
) -> None:
    built, config = trained(name, **method)
    assert write_peft(tmp_path, config, adapter_state(built.model)) is None
    plain = make_backbone(name, bands=BANDS)
    side = {"timm/tiny_vit_5m_224": 224, "timm/small_eva02": 56}.get(name, 64)
    images = torch.randn(2, 3, side, side)
    before = features(plain.model, images)
    opened = PeftModel.from_pretrained(plain.model, str(tmp_path))
    found = features(opened.base_model.model, images)
    expected = features(built.model.encoder.backbone.model, images)
    change = float((expected - before).abs().max())
    assert change > 1e-5
    assert float((found - expected).abs().max()) < 0.01 * change


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ({"frozen_precision": "int8"}, "int8"),
        ({"kind": "peft", "tuner": "lora", "options": {"use_dora": True}}, "use_dora"),
    ],
)
def test_the_reason_is_stated_if_features_would_differ(
    trained: Callable[..., tuple[BuiltModel, AdapterConfig]],
    tmp_path: Path,
    method: dict[str, Any],
    reason: str,
) -> None:
    built, config = trained("timm/test_vit", **method)
    answer = write_peft(tmp_path, config, adapter_state(built.model))
    assert answer and reason in answer
    assert not (tmp_path / CONFIG).exists() and not (tmp_path / TENSORS).exists()


def test_other_methods_have_no_such_files(
    trained: Callable[..., tuple[BuiltModel, AdapterConfig]], tmp_path: Path
) -> None:
    built, config = trained("timm/test_vit", kind="peft", tuner="ia3", rank=None)
    assert write_peft(tmp_path, config, adapter_state(built.model)) == ""


def test_code_of_the_user_is_not_run(
    trained: Callable[..., tuple[BuiltModel, AdapterConfig]], tmp_path: Path
) -> None:
    built, config = trained("timm/test_vit")
    section = {**config.sections["backbone"], "name": "python/mine.py:build"}
    config = replace(config, sections={**config.sections, "backbone": section})
    answer = write_peft(tmp_path, config, adapter_state(built.model))
    assert answer and "Python file" in answer
