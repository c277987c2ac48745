"""A compiled backbone: the same features, the same names, and no trace afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import geotune
from geotune.api.fitting import FitResult
from geotune.backbones.base import Backbone, fingerprint
from geotune.errors import GeotuneError
from geotune.training.compile import compiled_blocks

CPU = torch.device("cpu")
Run = Callable[..., FitResult]


def test_features_names_and_hooks_stay(make_backbone: Callable[..., Backbone]) -> None:
    encoder = geotune.attach(make_backbone("vit"), geotune.Est(min_width=8)).eval()
    images = torch.randn(1, 4, 64, 64)
    before, names = encoder.features(images), list(encoder.state_dict())
    mark = fingerprint(encoder.backbone)
    said: list[str] = []
    with compiled_blocks(encoder, CPU, said.append, backend="eager"):
        assert all("forward" in vars(block) for block in encoder.backbone.blocks)
        for _ in range(2):  # the hooks of each call are its own
            found = encoder.features(images)
        assert list(encoder.state_dict()) == names and fingerprint(encoder.backbone) == mark
    assert not any("forward" in vars(block) for block in encoder.backbone.blocks)
    assert not said and found.keys() == before.keys()
    for name, maps in before.items():
        torch.testing.assert_close(found[name], maps)


def test_without_a_compiler_it_runs_as_ever(
    make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    encoder = geotune.attach(make_backbone("vit"), geotune.Est(min_width=8))
    said: list[str] = []
    with compiled_blocks(encoder, CPU, said.append):
        assert not any("forward" in vars(block) for block in encoder.backbone.blocks)
        encoder.features(torch.randn(1, 4, 64, 64))
    assert len(said) == 1 and "(No working C++ compiler found); the backbone runs" in said[0]


@pytest.mark.slow
def test_a_training_gives_the_same_adapter(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is = train(tmp_path / "plain", {"train.epochs": 1})
    compile_, calls = torch.compile, []

    def eager(function: Any, *, backend: str) -> Any:
        calls.append(backend)
        return compile_(function, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    result = train(tmp_path / "compiled", {"train.epochs": 1, "train.compile": True})
    assert len(calls) > 1
    files = [run / "adapter.safetensors" for run in (as_it_is.run, result.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"kind": "lora"}, "lora changes it"),
        ({"kind": "est", "use_block_internals": True}, "compiled whole"),
    ],
)
def test_a_method_that_needs_the_blocks_is_refused(
    train: Run, tmp_path: Path, method: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeotuneError, match=rf"train\.compile.*{message}"):
        train(tmp_path / "run", {"method": method, "train.compile": True})
    assert not (tmp_path / "run").exists()
