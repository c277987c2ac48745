"""Weights from local files, and patch embeddings adapted to other bands."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geotune.backbones.weights import adapt_input_conv, load_weights, read_state_dict
from helpers.errors import raises

RGB = torch.arange(24.0).reshape(2, 3, 2, 2)


def test_safetensors_and_pytorch_files_are_read(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.pt", "a.ckpt"):
        result = read_state_dict(tmp_path / name)
        assert result.keys() == state.keys()
        assert torch.equal(result["a"], state["a"])


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with raises("file-missing", key="backbone.weights", file=tmp_path / "nothing.pt"):
        read_state_dict(tmp_path / "nothing.pt")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_truncated_file_is_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    state = {"a": torch.zeros(1000)}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with raises("file-unreadable", key="backbone.weights", file=path):
        read_state_dict(path)


class Trap:
    """Code that a pickle executes when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_code_in_a_file_is_not_executed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trap.{suffix}"
    path.write_bytes(pickle.dumps({"a": Trap(tmp_path / "sprung")}, protocol=2))
    with raises("file-unreadable", file=path):
        read_state_dict(path)
    torch.save({"a": Trap(tmp_path / "sprung")}, path)
    with raises("file-unreadable", file=path):
        read_state_dict(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)]])
def test_a_file_without_tensors_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with raises("weights-mismatch", file=tmp_path / "a.pt"):
        read_state_dict(tmp_path / "a.pt")


def test_additional_keys_are_ignored_and_missing_keys_reported_with_similar_ones() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    state = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "head.weight": torch.ones(1)}
    load_weights(model, state, "file", "model")
    assert torch.equal(model[0].weight, torch.ones(3, 2))
    other = {f"0.{name[2:]}s": tensor for name, tensor in state.items()}
    mentions = ["file", "model", "0.weight, 0.bias", "0.weights"]
    with raises("weights-mismatch", key="backbone.weights", mentions=mentions):
        load_weights(model, other, "file", "model")


def test_weights_of_red_green_blue_are_unchanged() -> None:
    for bands in (("red", "green", "blue"), ("B04", "B03", "B02"), ("R", "G", "B")):
        fitted, note = adapt_input_conv(RGB, bands)
        assert torch.equal(fitted, RGB)
        assert note is None


def test_named_bands_get_their_channel_and_others_the_mean() -> None:
    fitted, note = adapt_input_conv(RGB, ["blue", "nir", "red"])
    mean = RGB.mean(1)
    assert torch.equal(fitted, torch.stack([RGB[:, 2], mean, RGB[:, 0]], dim=1))
    assert note is not None
    assert "nir" in note


def test_three_unnamed_bands_are_used_as_red_green_blue() -> None:
    fitted, note = adapt_input_conv(RGB, ["band1", "band2", "band3"])
    assert torch.equal(fitted, RGB)
    assert note is not None
    assert "band1, band2, band3" in note


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_response_to_a_grey_image_is_preserved(count: int) -> None:
    fitted, _ = adapt_input_conv(RGB, [f"band{i}" for i in range(count)])
    torch.testing.assert_close(fitted.sum(1), RGB.sum(1))


@pytest.mark.parametrize("prefix", ["model.encoder.", "backbone.", ""])
def test_a_common_prefix_of_the_keys_is_removed(tmp_path: Path, prefix: str) -> None:
    import geotune

    source = geotune.backbone("timm/test_vit", bands=3, pretrained=False)
    state = {f"{prefix}{k}": v + 1 for k, v in source.model.state_dict().items()}
    state["decoder.head.weight"] = torch.zeros(2)
    file = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": state}, file)
    loaded = geotune.backbone("timm/test_vit", bands=["red", "green", "blue"], weights=file)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, source.model.state_dict()[name] + 1), name


def test_an_ambiguous_prefix_is_not_removed() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    state = {
        f"{who}.{name}": tensor
        for who in ("student", "teacher")
        for name, tensor in model.state_dict().items()
    }
    with raises("weights-mismatch", mentions=["0.weight, 0.bias"]):
        load_weights(model, state, "file", "model")
