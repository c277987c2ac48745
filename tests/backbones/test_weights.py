"""Weights from local files, and patch embeddings adapted to other bands."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geotune.backbones.checkpoint_keys import match_keys
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


def batch_norm_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))


@pytest.mark.parametrize("prefix", ["", "model.encoder."])
def test_counters_of_batch_norm_may_be_missing(prefix: str) -> None:
    """As PyTorch's strict loading accepts a state dict of before their time."""
    model, other = batch_norm_net(), batch_norm_net()
    other[1](other[0](torch.randn(2, 3, 4, 4)))
    state = {k: v for k, v in other.state_dict().items() if not k.endswith("num_batches_tracked")}
    batch_norm_net().load_state_dict(state, strict=True)
    load_weights(model, {prefix + k: v for k, v in state.items()}, "file", "model")
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    assert model[1].num_batches_tracked == 0
    del state["1.running_mean"]
    with raises("weights-mismatch", mentions=["1 keys are missing: 1.running_mean"]):
        load_weights(model, state, "file", "model")


def torchvision_models() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Small models of torchvision and the same of timm, with other weights."""
    import timm.models as theirs
    import torchvision.models as tv
    from torchvision.models.convnext import CNBlockConfig

    vit = {"image_size": 32, "patch_size": 8, "num_classes": 5}
    swin = {"embed_dim": 16, "depths": (1, 2), "num_heads": (2, 4)}
    stages = [
        CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 2), CNBlockConfig(24, 32, 1),
        CNBlockConfig(32, None, 1),
    ]  # fmt: skip
    return {
        "vit": (
            tv.VisionTransformer(**vit, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64),
            theirs.VisionTransformer(
                img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0
            ),
        ),
        "swin": (
            tv.SwinTransformer([4, 4], 16, [1, 2], [2, 4], [4, 4], num_classes=5),
            theirs.SwinTransformer(img_size=32, window_size=4, num_classes=0, **swin),
        ),
        "convnext": (
            tv.ConvNeXt(stages, num_classes=5),
            theirs.ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=0),
        ),
        "mobilenet_v2": (
            tv.mobilenet_v2(num_classes=5),
            theirs.mobilenetv2_100(num_classes=0),
        ),
    }


@pytest.mark.parametrize("name", ["vit", "swin", "convnext", "mobilenet_v2"])
def test_torchvision_weights_give_torchvisions_features(name: str) -> None:
    torch.manual_seed(0)
    source, model = torchvision_models()[name]
    for tensor in source.state_dict().values():
        if tensor.is_floating_point() and tensor.abs().max() < 1e-3:
            tensor += 0.05 * torch.rand(tensor.shape)
    for head in ("heads", "head", "classifier"):
        if hasattr(source, head):
            layers = getattr(source, head)
            if isinstance(layers, nn.Sequential):  # ConvNeXt has its last norm in the classifier
                layers[-1] = nn.Identity()
            else:
                setattr(source, head, nn.Identity())
    state = match_keys(dict(source.state_dict()), model)
    load_weights(model, state, "file", name)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = source.eval()(images)
        torch.testing.assert_close(model.eval()(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-3


SMALL_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_VIT |= {"image_size": 32, "patch_size": 8, "intermediate_size": 64}


def transformers_models() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Small models of transformers and the same of timm, with other weights."""
    import timm.models as theirs
    import transformers as tf
    from timm.layers import SwiGLUPacked

    same = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    same |= {"num_classes": 0}
    swiglu = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 6.0}
    registers = {"reg_tokens": 4, "no_embed_class": True}
    scale = {"init_values": 1.0}
    return {
        "vit": (tf.ViTModel(tf.ViTConfig(**SMALL_VIT)), theirs.VisionTransformer(**same)),
        "vit with head": (
            tf.ViTForImageClassification(tf.ViTConfig(**SMALL_VIT)),
            theirs.VisionTransformer(**same),
        ),
        "mae": (
            tf.ViTMAEModel(tf.ViTMAEConfig(**SMALL_VIT, mask_ratio=0.0)),
            theirs.VisionTransformer(**same),
        ),
        "deit": (
            tf.DeiTModel(tf.DeiTConfig(**SMALL_VIT)),
            theirs.deit.VisionTransformerDistilled(**same),
        ),
        "dinov2": (
            tf.Dinov2Model(tf.Dinov2Config(**SMALL_VIT)),
            theirs.VisionTransformer(**same, **scale),
        ),
        "dinov2 with head": (
            tf.Dinov2ForImageClassification(tf.Dinov2Config(**SMALL_VIT)),
            theirs.VisionTransformer(**same, **scale),
        ),
        "dinov2 with swiglu": (
            tf.Dinov2Model(tf.Dinov2Config(**SMALL_VIT, use_swiglu_ffn=True)),
            theirs.VisionTransformer(**same, **scale, **swiglu),
        ),
        "dinov2 with registers": (
            tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**SMALL_VIT)),
            theirs.VisionTransformer(**same, **scale, **registers),
        ),
    }


@pytest.mark.parametrize("file", [False, True], ids=["model", "file"])
@pytest.mark.parametrize("name", transformers_models())
def test_transformers_weights_give_the_features_of_transformers(
    name: str, file: bool, tmp_path: Path
) -> None:
    """Files have the names of version 4, models those of version 5."""
    torch.manual_seed(0)
    source, model = transformers_models()[name]
    for tensor in source.state_dict().values():
        tensor += 0.1 * torch.randn(tensor.shape)
    state = dict(source.state_dict())
    if file:
        source.save_pretrained(tmp_path)
        state = read_state_dict(tmp_path / "model.safetensors")
    load_weights(model, match_keys(state, model), "file", name)
    images = torch.randn(2, 3, 32, 32)
    encoder = source.base_model.eval()
    noise = {"noise": torch.arange(16.0).expand(2, 16)} if name == "mae" else {}
    with torch.no_grad():
        expected = encoder(images, **noise).last_hidden_state
        found = model.eval().forward_features(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", ["dinov2", "dinov2 with registers", "deit"])
def test_transformers_weights_of_other_parts_than_the_models_are_not_mapped(name: str) -> None:
    """A layer scale, register tokens and a distillation token that the model would leave out."""
    source, _ = transformers_models()[name]
    _, model = transformers_models()["vit"]
    state = dict(source.state_dict())
    assert match_keys(state, model).keys() == state.keys()
    with raises("weights-mismatch", key="backbone.weights", mentions=["keys are missing"]):
        load_weights(model, match_keys(state, model), "file", name)


def test_tensors_are_not_matched_by_position_unless_all_fit() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    shapes = {"dense/weight": (4, 4), "dense/bias": (4,), "norm/weight": (4,), "norm/bias": (4,)}
    state = {name.replace("/", "."): torch.ones(shape) for name, shape in shapes.items()}
    assert match_keys(state, model).keys() == model.state_dict().keys()
    wider = {**state, "dense.weight": torch.ones(4, 5)}
    renamed = {name.replace("norm.weight", "norm.scale"): x for name, x in state.items()}
    for other in (wider, renamed, dict(list(state.items())[:-1])):
        assert match_keys(other, model).keys() == other.keys()
