"""Compiled backbones: equal features and names, restored afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import geotune
from geotune.api.fitting import FitResult
from geotune.backbones.base import Backbone, fingerprint
from geotune.training.compile import compiled_blocks
from helpers.errors import raises

CPU = torch.device("cpu")
Run = Callable[..., FitResult]


def test_compiled_blocks_keep_features_names_and_hooks(
    make_backbone: Callable[..., Backbone],
) -> None:
    encoder = geotune.attach(make_backbone("vit"), geotune.Est(min_width=8)).eval()
    images = torch.randn(1, 4, 64, 64)
    before, names = encoder.features(images), list(encoder.state_dict())
    mark = fingerprint(encoder.backbone)
    messages: list[str] = []
    with compiled_blocks(encoder, CPU, messages.append, backend="eager"):
        assert all("forward" in vars(block) for block in encoder.backbone.blocks)
        for _ in range(2):  # hooks are registered per call
            features = encoder.features(images)
        assert list(encoder.state_dict()) == names and fingerprint(encoder.backbone) == mark
    assert not any("forward" in vars(block) for block in encoder.backbone.blocks)
    assert not messages and features.keys() == before.keys()
    for name, maps in before.items():
        torch.testing.assert_close(features[name], maps)


def test_without_a_compiler_the_backbone_runs_uncompiled(
    make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    encoder = geotune.attach(make_backbone("vit"), geotune.Est(min_width=8))
    messages: list[str] = []
    with compiled_blocks(encoder, CPU, messages.append):
        assert not any("forward" in vars(block) for block in encoder.backbone.blocks)
        encoder.features(torch.randn(1, 4, 64, 64))
    assert len(messages) == 1 and "(No working C++ compiler found)" in messages[0]


@pytest.mark.slow
def test_compiled_training_gives_the_same_adapter(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncompiled = train(tmp_path / "plain", {"train.epochs": 1})
    compile_, calls = torch.compile, []

    def eager(function: Any, *, backend: str) -> Any:
        calls.append(backend)
        return compile_(function, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    result = train(tmp_path / "compiled", {"train.epochs": 1, "train.compile": True})
    assert len(calls) > 1
    files = [run / "adapter.safetensors" for run in (uncompiled.run, result.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("method", [{"kind": "lora"}, {"kind": "est", "use_block_internals": True}])
def test_method_that_needs_the_blocks_is_rejected(
    train: Run, tmp_path: Path, method: dict[str, Any]
) -> None:
    mentions = [f"method.kind {method['kind']}"]
    with raises("settings-incompatible", key="train.compile", mentions=mentions):
        train(tmp_path / "run", {"method": method, "train.compile": True})
    assert not (tmp_path / "run").exists()
