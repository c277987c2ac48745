"""Weights from local files, and patch embeddings fitted to other bands."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geotune.backbones.weights import adapt_input_conv, load_weights, read_state_dict
from geotune.errors import GeotuneError

RGB = torch.arange(24.0).reshape(2, 3, 2, 2)


def test_both_kinds_of_file_are_read(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.pt", "a.ckpt"):
        found = read_state_dict(tmp_path / name)
        assert found.keys() == state.keys()
        assert torch.equal(found["a"], state["a"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GeotuneError, match=r"nothing\.pt: no such weights file"):
        read_state_dict(tmp_path / "nothing.pt")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    state = {"a": torch.zeros(1000)}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(GeotuneError, match=rf"cut\.{suffix}: cannot be read as weights"):
        read_state_dict(path)


class Trap:
    """What a pickle may do to whoever loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_no_code_of_a_file_is_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trap.{suffix}"
    path.write_bytes(pickle.dumps({"a": Trap(tmp_path / "sprung")}, protocol=2))
    with pytest.raises(GeotuneError, match="cannot be read as weights"):
        read_state_dict(path)
    torch.save({"a": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(GeotuneError, match="cannot be read as weights"):
        read_state_dict(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)]])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(GeotuneError, match=r"a\.pt: (holds no tensors|found list)"):
        read_state_dict(tmp_path / "a.pt")


def test_a_head_of_the_checkpoint_is_left_out_and_a_missing_key_has_its_near_one() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    state = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "head.weight": torch.ones(1)}
    load_weights(model, state, "file", "model")
    assert torch.equal(model[0].weight, torch.ones(3, 2))
    other = {f"0.{name[2:]}s": tensor for name, tensor in state.items()}
    with pytest.raises(GeotuneError, match=r"2 keys are missing: 0\.weight, 0\.bias \(it has 0"):
        load_weights(model, other, "file", "model")


def test_red_green_blue_stay_as_they_are() -> None:
    for bands in (("red", "green", "blue"), ("B04", "B03", "B02"), ("R", "G", "B")):
        fitted, note = adapt_input_conv(RGB, bands)
        assert torch.equal(fitted, RGB)
        assert note is None


def test_named_bands_take_their_colour_and_others_the_mean() -> None:
    fitted, note = adapt_input_conv(RGB, ["blue", "nir", "red"])
    mean = RGB.mean(1)
    assert torch.equal(fitted, torch.stack([RGB[:, 2], mean, RGB[:, 0]], dim=1))
    assert note is not None
    assert "nir start" in note


def test_three_nameless_bands_feed_the_three_colours() -> None:
    fitted, note = adapt_input_conv(RGB, ["band1", "band2", "band3"])
    assert torch.equal(fitted, RGB)
    assert note is not None
    assert "in this order" in note


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_response_to_a_grey_image_stays(count: int) -> None:
    fitted, _ = adapt_input_conv(RGB, [f"band{i}" for i in range(count)])
    torch.testing.assert_close(fitted.sum(1), RGB.sum(1))


@pytest.mark.parametrize("prefix", ["model.encoder.", "backbone.", ""])
def test_a_checkpoint_of_another_tool_may_put_words_before_the_names(
    tmp_path: Path, prefix: str
) -> None:
    import geotune

    source = geotune.backbone("timm/test_vit", bands=3, pretrained=False)
    state = {f"{prefix}{k}": v + 1 for k, v in source.model.state_dict().items()}
    state["decoder.head.weight"] = torch.zeros(2)
    file = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": state}, file)
    loaded = geotune.backbone("timm/test_vit", bands=["red", "green", "blue"], weights=file)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, source.model.state_dict()[name] + 1), name


def test_of_a_student_and_its_teacher_none_is_chosen() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    state = {
        f"{who}.{name}": tensor
        for who in ("student", "teacher")
        for name, tensor in model.state_dict().items()
    }
    with pytest.raises(GeotuneError, match="2 keys are missing"):
        load_weights(model, state, "file", "model")
