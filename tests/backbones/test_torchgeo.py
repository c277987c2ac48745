"""torchgeo's families: parity with torchgeo, bands by name, and the interface of backbones.

The networks have few blocks and channels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo import croma, dofa, panopticon, scalemae, swin
from geotune.backbones.torchgeo.torchgeo_provider import MODELS
from geotune.backbones.torchgeo.weights_table import PUBLISHED_WEIGHTS
from geotune.backbones.weights import download_url
from helpers.errors import raises
from helpers.method_cases import NEED_AN_MLP, PLAIN_ONLY

pytest.importorskip("torchgeo")
import torchgeo.models

S1, S2 = croma.BANDS["S1"], croma.BANDS["S2"]
SATLAS_S2 = "swin_v2_t_sentinel2_mi_ms_satlas"
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dofa": ("dofa_base_patch16_224", ("B02", "B03", "B04", "VV")),
    "croma": ("croma_base", (*S1, *S2)),
    "panopticon": ("panopticon_vitb14", ("B02", "red", "nir", "VV", "VH")),
    "scalemae": ("scalemae_large_patch16", ("red", "green", "blue")),
    "swin": ("swin_t_cityscapes_semseg", ("red", "green", "blue")),
    "swin_v2": (SATLAS_S2, MODELS[SATLAS_S2].bands),
    "resnet": ("resnet18_sentinel2_all_moco", MODELS["resnet18_sentinel2_all_moco"].bands),
    "vit": ("vit_small_patch16_224_sentinel1_grd_mae", S1),
    "dinov2": ("vit_small_patch14_dinov2_sentinel1_grd_softcon", S1),
}
STRIDES = {
    "dofa": [16] * 2,
    "croma": [8] * 8,
    "panopticon": [14] * 2,
    "scalemae": [16] * 2,
    "swin": [4, 4, 8, 8, 16, 16, 32, 32],
    "swin_v2": [4, 4, 8, 8, 16, 16, 32, 32],
    "resnet": [4, 4, 8, 8, 16, 16, 32, 32],
    "vit": [16] * 2,
    "dinov2": [14] * 2,
}
REAL = {
    "dofa": dofa.SHAPES,
    "croma": croma.SHAPES,
    "scalemae": scalemae.SHAPES,
    "swin": swin.SHAPES,
}
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network with few blocks and channels."""
    tiny = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    narrow = {"channels": (8, 16, 24, 32)}
    create = timm.create_model

    def create_small(name: str, **options: Any) -> nn.Module:
        model: nn.Module = create(name, **(tiny if name.startswith("vit") else narrow), **options)
        return model

    monkeypatch.setattr(timm, "create_model", create_small)
    monkeypatch.setitem(dofa.SHAPES, "dofa_base_patch16_224", {"patch_size": 16, **tiny})
    monkeypatch.setitem(scalemae.SHAPES, "scalemae_large_patch16", {"patch_size": 16, **tiny})
    monkeypatch.setitem(panopticon.SHAPES, "panopticon_vitb14", {"attn_dim": 48, "embed_dim": 32})
    shape = {
        "encoder_dim": 32,
        "encoder_depth": 4,
        "num_heads": 16,
    }  # torchgeo supports 16 heads only
    monkeypatch.setitem(croma.SHAPES, "croma_base", shape)
    monkeypatch.setitem(swin.HEADS, 16, [1, 2, 4, 4])
    monkeypatch.setitem(swin.SHAPES, "swin_t", {"width": 16, "third": 2, "window": 7})
    monkeypatch.setitem(swin.SHAPES, "swin_v2_t", {"width": 16, "third": 2, "window": 8})


def build(family: str, bands: Any = None, **options: Any) -> Any:
    name, own = FAMILIES[family]
    options = {"pretrained": False, **options}
    return geotune.backbone(f"torchgeo/{name}", bands=own if bands is None else bands, **options)


def perturbed(backbone: Any) -> Any:
    """The backbone with noise added to all parameters, so that none is zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return backbone.eval()


def images(bands: int, height: int = 37, width: int = 50, seed: int = 0) -> Tensor:
    return torch.randn(2, bands, height, width, generator=torch.Generator().manual_seed(seed))


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def as_map(tokens: Tensor, rows: int, columns: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)


# ---------------------------------------------------------------- the contract
@every_family
def test_every_block_is_a_tap_and_maps_match_the_taps_for_any_image_size(family: str) -> None:
    backbone = build(family).eval()
    assert [tap.stride for tap in backbone.taps] == STRIDES[family]
    modules = dict(backbone.model.named_modules())
    assert [modules[tap.name] for tap in backbone.taps] == backbone.blocks
    called: list[nn.Module] = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda module, *_: called.append(module))
    with torch.no_grad():
        features = backbone(images(len(backbone.bands)))
    assert called == backbone.blocks, "blocks are called in the order of the taps"
    size = tuple(-(-side // backbone.size_divisor) * backbone.size_divisor for side in (37, 50))
    assert features.image_size == size
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (2, tap.channels, size[0] / tap.stride, size[1] / tap.stride)
        assert feature.isfinite().all()
    tokens = 0 if family in ("croma", "swin", "swin_v2", "resnet") else 1
    assert (0 if features.tokens is None else features.tokens.shape[1]) == tokens


@every_family
def test_bands_are_matched_by_name(family: str) -> None:
    own = FAMILIES[family][1]
    order = list(range(len(own)))[::-1]
    here, there = build(family).eval(), build(family, [own[i] for i in order]).eval()
    image = images(len(own))
    with torch.no_grad():
        ours, theirs = there(image[:, order]).maps, here(image).maps
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=1e-4
        )  # different order of summation
        assert not torch.allclose(there(image).maps[-1], theirs[-1], atol=1e-3)


@every_family
def test_random_weights_are_reproducible(family: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build(family)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = build(family)
    assert one.random_weights
    assert one.fingerprint == two.fingerprint
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


@every_family
def test_weights_of_a_file_are_loaded_and_others_rejected(family: str, tmp_path: Path) -> None:
    published = perturbed(build(family))  # with all bands, as published
    state = published.model.state_dict()
    if family == "croma":  # one state dict per submodule
        modules = {name.partition(".")[0] for name in state}
        state = {
            name: {k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{name}.")}
            for name in modules
        }
    else:
        state["head.weight"] = torch.zeros(1)  # is ignored
    torch.save(state, tmp_path / "w.pth")
    backbone = build(family, weights=tmp_path / "w.pth").eval()
    assert not backbone.random_weights
    assert backbone.source == str(tmp_path / "w.pth")
    assert backbone.licence == "unknown: given as a file"
    image = images(len(backbone.bands))
    with torch.no_grad():
        close(backbone(image).maps, published(image).maps)

    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with raises("weights-mismatch", mentions=["other.pth", FAMILIES[family][0]]):
        build(family, weights=tmp_path / "other.pth")


@every_family
def test_every_method_trains_only_its_parameters(
    family: str, try_every_method: Callable[..., set[str]]
) -> None:
    unsupported = {
        "croma": {"vpt", "vpt-shallow", "lst-pruned"},
        "swin": PLAIN_ONLY | {"peft-oft", "lst-pruned"},
        "swin_v2": PLAIN_ONLY | {"peft-oft", "lst-pruned"},
        "resnet": PLAIN_ONLY | NEED_AN_MLP,
    }
    assert try_every_method(perturbed(build(family))) == unsupported.get(family, set())


@every_family
def test_every_parameter_gets_a_gradient(family: str) -> None:
    encoder = geotune.attach(perturbed(build(family)), geotune.Full(stem_width=0))
    frozen = {name for name, _ in encoder.named_parameters()} - set(encoder.trainable_names())
    assert frozen <= {"backbone.model.pos_embed"}


def test_lora_trains_the_attention_of_a_swin() -> None:
    for family in ("swin", "swin_v2"):
        torch.manual_seed(0)
        encoder = geotune.attach(
            build(family), geotune.Lora(rank=1, targets=["qkv", "proj"], stem_width=0)
        )
        encoder(images(len(encoder.backbone.bands))).maps[-1].square().mean().backward()
        updated = [n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()]
        assert len(updated) == 16  # B of two layers in each of eight blocks
        before = encoder(images(len(encoder.backbone.bands))).maps[-1]
        for name, parameter in encoder.named_parameters():
            if name in updated:
                parameter.data += 0.02
        changed = encoder.eval()(images(len(encoder.backbone.bands))).maps[-1]
        assert not torch.allclose(changed, before, atol=1e-3)
        encoder.merge()
        merged = encoder(images(len(encoder.backbone.bands))).maps[-1]
        torch.testing.assert_close(merged, changed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"), [("patch_size", 8), ("timesteps", 2), ("metadata", ["time"])]
)
@every_family
def test_options_that_no_family_supports_are_rejected(family: str, option: str, value: Any) -> None:
    with raises("backbone-option", key=f"backbone.{option}", mentions=[FAMILIES[family][0]]):
        build(family, **{option: value})


@every_family
def test_options_of_other_families_are_rejected(family: str) -> None:
    supported = MODELS[FAMILIES[family][0]].supported_options
    offered = {"gsd": 10.0, "wavelengths": {FAMILIES[family][1][0]: 0.5}, "new_bands": "mean"}
    for option, value in offered.items():
        if option in supported:
            build(family, **{option: value})
        else:
            with raises("backbone-option", key=f"backbone.{option}"):
                build(family, **{option: value})


@pytest.mark.parametrize("family", ["croma", "scalemae", "swin_v2", "resnet", "vit"])
def test_unknown_bands_are_rejected_or_initialised_from_the_mean(family: str) -> None:
    known = FAMILIES[family][1][1]
    with raises("band-unknown", key="backbone.bands", mentions=["LST"]):
        build(family, [known, "LST"])
    backbone = build(family, [known, "LST"], new_bands="mean")
    assert "LST" in " ".join(backbone.notes)
    assert backbone.normalization is None
    assert backbone(images(2)).maps[-1].isfinite().all()


# ---------------------------------------------------------------- parity with torchgeo
def last_tokens(model: nn.Module, blocks: Any, *inputs: Any) -> Tensor:
    """Output of the last block when the whole model runs."""
    result: list[Tensor] = []
    hook = blocks[-1].register_forward_hook(lambda _m, _i, output: result.append(output))
    with torch.no_grad():
        model(*inputs)
    hook.remove()
    return result[0]


def test_dofa_equals_torchgeos() -> None:
    bands = ["B04", "VV", "swir1", "mine"]
    ours = perturbed(build("dofa", bands, wavelengths={"mine": 1.3}))
    assert ours.wavelengths_um == (0.665, 5.405, 1.61, 1.3)
    theirs = torchgeo.models.DOFA(**dofa.SHAPES["dofa_base_patch16_224"], num_classes=0).eval()
    missing, unexpected = theirs.load_state_dict(ours.model.state_dict(), strict=False)
    assert set(missing) == {"fc_norm.weight", "fc_norm.bias"}
    assert not unexpected
    image = images(4, 224, 224)
    tokens = last_tokens(theirs, theirs.blocks, image, [0.665, 5.405, 1.61, 1.3])
    with torch.no_grad():
        features = ours(image)
        pooled = theirs.forward_features(image, [0.665, 5.405, 1.61, 1.3])
        close(theirs.fc_norm(features.maps[-1].mean((2, 3))), pooled)
    close(features.maps[-1], as_map(tokens[:, 1:], 14, 14))
    close(features.tokens, tokens[:, :1])


def test_panopticon_equals_torchgeos() -> None:
    bands = ["B02", "nir", "VH", "HV_DESCENDING", "mine"]
    ours = perturbed(build("panopticon", bands, wavelengths={"mine": 1.3731}))
    assert ours.channel_ids == (490, 842, -2, -12, 1373.1)
    theirs = torchgeo.models.Panopticon(**panopticon.SHAPES["panopticon_vitb14"]).model.eval()
    from torchgeo.models.copernicusfm import resize_abs_pos_embed

    state = ours.model.state_dict()
    state["pos_embed"] = resize_abs_pos_embed(state["pos_embed"], 16, 37)  # as torchgeo loads it
    theirs.load_state_dict(state)
    image = images(5, 224, 224)
    ids = torch.tensor(ours.channel_ids).repeat(2, 1)
    with torch.no_grad():
        tokens = theirs.forward_features({"imgs": image, "chn_ids": ids})
        features = ours(image)
    close(features.maps[-1], as_map(tokens[:, 1:], 16, 16))
    close(features.tokens, tokens[:, :1])


def test_panopticon_freezes_unused_radar_embeddings() -> None:
    frozen = [n for n, p in build("panopticon", ["B02"]).named_parameters() if not p.requires_grad]
    assert [name.rpartition(".")[2] for name in frozen] == [
        *("embed_transmit", "embed_receive", "embed_orbit")
    ]
    assert all(p.requires_grad for p in build("panopticon", ["B02", "VV"]).parameters())


@pytest.mark.parametrize("gsd", [None, 10.0])
def test_scalemae_equals_torchgeos(gsd: float | None) -> None:
    ours = perturbed(build("scalemae", gsd=gsd))
    shape = scalemae.SHAPES["scalemae_large_patch16"]
    theirs = torchgeo.models.ScaleMAE(
        res=gsd or 1.0,
        img_size=64,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **shape,
    ).eval()
    missing, unexpected = theirs.load_state_dict(ours.model.state_dict(), strict=False)
    assert missing == ["pos_embed"]
    assert not unexpected
    image = images(3, 64, 64)
    with torch.no_grad():
        tokens = theirs.forward_features(image)
        features = ours(image)
    close(features.maps[-1], as_map(tokens[:, 1:], 4, 4))
    close(features.tokens, tokens[:, :1])
    assert ("distance of 1 m" in " ".join(ours.notes)) == (gsd is None)


def test_scalemaes_positions_of_a_rectangle_are_part_of_those_of_a_square() -> None:
    backbone = build("scalemae", gsd=5.0)
    wide, square = (
        backbone.position_encodings(grid, torch.device("cpu")) for grid in ((2, 5), (5, 5))
    )
    torch.testing.assert_close(wide.reshape(2, 5, -1), square.reshape(5, 5, -1)[:2], rtol=0, atol=0)
    with raises("recipe-invalid", key="backbone.gsd", mentions=["-1"]):
        build("scalemae", gsd=-1.0)


@pytest.mark.parametrize("modalities", [("S1",), ("S2",), ("S1", "S2"), ("S2", "S1")])
def test_croma_equals_torchgeos(modalities: tuple[str, ...]) -> None:
    theirs_of = {"S1": "sar", "S2": "optical"}
    ours = perturbed(build("croma", {m: croma.BANDS[m] for m in modalities}))
    shape = croma.SHAPES["croma_base"]
    names = [theirs_of[m] for m in sorted(modalities)]
    theirs = torchgeo.models.CROMA(names, **shape, image_size=40).eval()
    missing, unexpected = theirs.load_state_dict(ours.model.state_dict(), strict=False)
    assert all("GAP_FFN" in key or key == "attn_bias" for key in missing)
    assert not unexpected
    inputs = {m: images(len(croma.BANDS[m]), 40, 40, seed=i) for i, m in enumerate(modalities)}
    with torch.no_grad():
        expected = theirs(**{f"x_{theirs_of[m]}": inputs[m] for m in modalities})
        maps = ours(inputs).maps
    ends = {"sar": 2, "optical": 4, "joint": 2}
    last = -1
    for name in [*names, "joint"] if len(names) == 2 else names:
        last += ends[name]
        close(maps[last], as_map(expected[f"{name}_encodings"], 5, 5))
    assert last == len(maps) - 1


def test_cromas_distance_bias_equals_torchgeos() -> None:
    from torchgeo.models.croma import get_2dalibi

    here = torch.device("cpu")
    close(croma.distance_bias((5, 5), 16, here), get_2dalibi(num_heads=16, num_patches=25))
    square = croma.distance_bias((5, 5), 16, here).reshape(16, 5, 5, 5, 5)
    wide = croma.distance_bias((2, 5), 16, here).reshape(16, 2, 5, 2, 5)
    torch.testing.assert_close(wide, square[:, :2, :, :2], rtol=0, atol=0)


def test_croma_assigns_bands_to_modalities() -> None:
    mixed = build("croma", ["B04", "VV", "B03"]).eval()
    named = build("croma", {"S2": ["B04", "B03"], "S1": ["VV"]}).eval()
    image = images(3, 16, 16)
    with torch.no_grad():
        close(mixed(image).maps, named(image[:, [0, 2, 1]]).maps)
    assert len(build("croma", ["VV"]).taps) == 2
    with raises("band-unknown", key="backbone.bands", mentions=["DEM", "S1, S2"]):
        build("croma", {"DEM": ["DEM"]})
    with raises("band-unknown", key="backbone.bands", mentions=["B10"]):
        build("croma", ["B10"])
    assert mixed.mean_std == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (256, 320)])
@pytest.mark.parametrize("family", ["swin", "swin_v2"])
def test_swin_equals_torchvisions(family: str, size: tuple[int, int]) -> None:
    from torchvision.models import swin_transformer as provider

    ours = perturbed(build(family))
    second = family == "swin_v2"
    theirs = provider.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=16,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 4],
        window_size=[8, 8] if second else [7, 7],
        block=provider.SwinTransformerBlockV2 if second else None,
        downsample_layer=provider.PatchMergingV2 if second else provider.PatchMerging,
        num_classes=5,
    ).eval()
    theirs.features[0][0] = nn.Conv2d(len(ours.bands), 16, 4, 4)
    missing, unexpected = theirs.load_state_dict(ours.model.state_dict(), strict=False)
    assert set(missing) == {"head.weight", "head.bias"}
    assert not unexpected
    image = images(len(ours.bands), *size)
    stages: dict[int, Tensor] = {}
    for stage in (1, 3, 5, 7):
        theirs.features[stage].register_forward_hook(
            lambda _m, _i, output, stage=stage: stages.update({stage: output})
        )
    with torch.no_grad():
        maps = ours(image).maps
        logits = theirs(image)
        torch.testing.assert_close(theirs.head(maps[-1].mean((2, 3))), logits, rtol=1e-6, atol=2e-6)
    for index, stage in ((1, 1), (3, 3), (5, 5)):
        close(maps[index], stages[stage].permute(0, 3, 1, 2))
    close(maps[-1], theirs.norm(stages[7]).permute(0, 3, 1, 2))


def test_the_key_bias_of_swin_v2_gets_no_gradient() -> None:
    ours = build("swin_v2")
    ours(images(9)).maps[-1].square().mean().backward()
    for block in ours.blocks:
        assert not block.attn.qkv.bias.grad.chunk(3)[1].any()


@pytest.mark.parametrize("family", ["resnet", "vit", "dinov2"])
def test_resnets_and_vits_equal_torchgeos(family: str) -> None:
    ours = perturbed(build(family))
    network = PUBLISHED_WEIGHTS[FAMILIES[family][0]].network
    options = {} if family == "resnet" else {"img_size": 224}
    theirs = getattr(torchgeo.models, network)(
        in_chans=len(ours.bands), num_classes=0, **options
    ).eval()
    theirs.load_state_dict(ours.model.state_dict())
    image = images(len(ours.bands), 224, 224)
    with torch.no_grad():
        expected = theirs.forward_features(image)
        features = ours(image)
    if family == "resnet":
        close(features.maps[-1], expected)
    else:
        side = 224 // ours.size_divisor
        close(features.maps[-1], as_map(expected[:, 1:], side, side))
        close(features.tokens, expected[:, :1])


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", [*REAL["dofa"], *REAL["croma"], *REAL["scalemae"], *REAL["swin"]])
def test_full_size_networks_have_torchgeos_shapes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of the small networks
    with torch.device("meta"):
        if name in swin.SHAPES:
            ours, theirs = swin.build_network(name, 3), getattr(torchgeo.models, name)()
        else:
            options = {"image_size": 8} if name in croma.SHAPES else {}
            theirs = getattr(torchgeo.models, name)(**options)
            if name in croma.SHAPES:
                ours = torchgeo.models.CROMA(**croma.SHAPES[name], **options)
            elif name in dofa.SHAPES:
                ours = torchgeo.models.DOFA(**dofa.SHAPES[name])
            else:
                ours = torchgeo.models.ScaleMAE(**scalemae.SHAPES[name])
    ours_of, theirs_of = (
        {k: v for k, v in shapes(model).items() if not k.startswith("head.")}
        for model in (ours, theirs)
    )
    if name == "swin_b":  # without weights torchgeo uses torchvision's windows
        assert ours_of.pop("features.1.0.attn.relative_position_bias_table") == (23 * 23, 4)
        ours_of = {k: v for k, v in ours_of.items() if "relative_position" not in k}
        theirs_of = {k: v for k, v in theirs_of.items() if "relative_position" not in k}
    assert ours_of == theirs_of


# ---------------------------------------------------------------- bands and units
def test_bands_of_unknown_wavelength_are_rejected() -> None:
    for family in ("dofa", "panopticon"):
        with raises("band-unknown", key="backbone.wavelengths", mentions=["LST"]):
            build(family, ["B02", "LST"])
        with raises("backbone-option", key="backbone.wavelengths", mentions=["B02: 490"]):
            build(family, ["B02"], wavelengths={"B02": 490.0})
    wavelengths = {"B02": 0.48, "B03": 0.55}  # may include unused bands
    assert build("dofa", ["B02"], wavelengths=wavelengths).wavelengths_um == (0.48,)


def test_landsat_bands_are_matched_by_landsats_numbers_or_by_color() -> None:
    name = "torchgeo/resnet18_landsat_oli_sr_moco"

    def with_bands(*bands: str) -> Backbone:
        return geotune.backbone(name, bands=bands, pretrained=False).eval()

    image = images(2, 64, 64)
    by_number = with_bands("SR_B4", "SR_B5")
    with torch.no_grad():
        expected = by_number(image).maps
        for bands in (("red", "nir"), ("B4", "b05")):
            close(with_bands(*bands)(image).maps, expected)
        close(with_bands("nir", "red")(image.flip(1)).maps, expected)
    assert "SR_B1 (coastal)" in by_number.notes[0]
    for unknown in ("B8A", "B12", "cirrus", "rededge1"):
        with raises("band-unknown", key="backbone.bands", mentions=[unknown, "SR_B4 (red)"]):
            with_bands("red", unknown)
    tm = geotune.backbone("torchgeo/resnet18_landsat_tm_toa_moco", bands=["blue"], pretrained=False)
    assert "B2 (green)" in tm.notes[0]
    assert "B1 (blue)" not in tm.notes[0]


@pytest.mark.parametrize(
    ("name", "bands", "offset", "scale", "mean"),
    [
        ("resnet18_sentinel2_all_moco", ("B12", "red"), (0, 0), (1e4, 1e4), (1537.4, 1373.1)),
        ("resnet50_sentinel2_all_softcon", ("B10",), (22.0,), (47.5,), (22.0,)),
        ("resnet50_sentinel1_all_moco", ("VH",), (-20.26,), (5.91,), (-20.26,)),
        ("swin_v2_t_sentinel2_mi_ms_satlas", ("B11", "B02"), (0, 0), (8160, 255), None),
        ("swin_v2_b_landsat_si_satlas", ("B5",), (4000,), (16320,), None),
        ("scalemae_large_patch16", ("blue",), (255 * 0.406,), (255 * 0.225,), (255 * 0.406,)),
        ("vit_small_patch16_224_landsat_tm_toa_moco", ("B3",), (0,), (255,), None),
        ("resnet18_sentinel2_rgb_seco", ("B03",), None, None, None),
        ("dofa_base_patch16_224", ("B03",), None, None, None),
    ],
)
def test_normalisations_match_torchgeo(
    name: str, bands: Any, offset: Any, scale: Any, mean: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(swin.SHAPES, "swin_v2_b", swin.SHAPES["swin_v2_t"])
    backbone = geotune.backbone(f"torchgeo/{name}", bands=bands, pretrained=False)
    known, seen = backbone.normalization, backbone.pretraining
    assert (known is None) == (offset is None)
    assert (seen is None) == (mean is None)
    if known is not None:
        assert known.bands == bands
        assert known.offset == pytest.approx(offset)
        assert known.scale == pytest.approx(scale)
    if seen is not None:
        assert seen.mean == pytest.approx(mean)


# ---------------------------------------------------------------- names and weights
def test_the_weights_table_matches_torchgeo() -> None:
    from geotune.backbones.bands import canonical_band

    listed = {}
    for network in {published.network for published in PUBLISHED_WEIGHTS.values()}:
        for weights in torchgeo.models.get_model_weights(network):
            listed[f"{network}_{weights.name.lower()}"] = weights
    if torchgeo.__version__.startswith("0.8."):
        assert set(listed) == set(PUBLISHED_WEIGHTS)
    for name in set(listed) & set(PUBLISHED_WEIGHTS):
        weights, published = listed[name], PUBLISHED_WEIGHTS[name]
        info, kind = published.info, published.images
        assert info.weights == weights.url.replace("//hf.co/", "//huggingface.co/"), name
        assert len(info.bands) == weights.meta["in_chans"], name
        assert weights.meta["publication"].rpartition("/")[2] in info.paper, name
        stated = weights.meta.get("bands") or info.bands
        assert [canonical_band(b) for b in stated] == [canonical_band(b) for b in info.bands], name
        offset, scale = torch.zeros(len(info.bands)), torch.ones(len(info.bands))
        result = False
        for step in weights.transforms.modules():
            if type(step).__name__ == "Normalize":  # composed
                result = True
                offset = offset + scale * torch.tensor(step.mean, dtype=torch.float32)
                scale = scale * torch.tensor(step.std, dtype=torch.float32)
        if not name.endswith("_seco"):
            assert result == bool(kind.scale), name
        if kind.scale:
            close(torch.tensor(kind.offset), offset.expand(len(kind.offset)))
            close(torch.tensor(kind.scale), scale.expand(len(kind.scale)))


@pytest.mark.parametrize(
    ("module", "enum"),
    [
        (dofa, "DOFABase16_Weights"),
        (dofa, "DOFALarge16_Weights"),
        (croma, "CROMABase_Weights"),
        (croma, "CROMALarge_Weights"),
        (panopticon, "Panopticon_Weights"),
        (scalemae, "ScaleMAELarge16_Weights"),
    ],
)
def test_urls_of_weights_match_torchgeo(module: Any, enum: str) -> None:
    if not hasattr(torchgeo.models, enum):
        pytest.skip(f"torchgeo {torchgeo.__version__} has no {enum}")
    urls = [w.url.replace("//hf.co/", "//huggingface.co/") for w in getattr(torchgeo.models, enum)]
    assert set(urls) <= {info.weights for info in module.MODELS.values()}


def test_a_missing_final_norm_is_initialised(tmp_path: Path) -> None:
    state = perturbed(build("vit")).model.state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("norm.")}, tmp_path / "w.pth")
    backbone = build("vit", weights=tmp_path / "w.pth")
    assert "no final norm" in backbone.notes[-1]
    assert torch.equal(backbone.model.norm.weight, torch.ones(32))


def test_unknown_names_are_rejected_with_similar_ones() -> None:
    with raises("backbone-unknown", mentions=["torchgeo/dofa_base_patch16_224"]):
        geotune.backbone("torchgeo/dofa_base_patch16", bands=3)
    with raises("backbone-unknown", mentions=["torchgeo/resnet152_sentinel2_mi_ms"]):
        geotune.backbone("torchgeo/resnet152", bands=3)
    with raises("backbone-unknown", key="backbone.name", mentions=["torchgeo/zzz"]):
        geotune.backbone("torchgeo/zzz", bands=3)


@pytest.mark.parametrize("family", ["dofa", "croma", "panopticon", "scalemae"])
def test_a_missing_package_is_reported(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo.models", None)
    with raises("dependency-missing", mentions=["geotune[torchgeo]"]):
        build(family)


def test_weights_are_downloaded_once_and_failures_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    mentions = ["resnet18_sentinel2_all_moco", "backbone.weights=FILE"]
    with raises("weights-unavailable", key="backbone.weights", mentions=mentions):
        build("resnet", pretrained=True)
    with raises("weights-unavailable", mentions=["dofa_small_patch16_224"]):
        geotune.backbone("torchgeo/dofa_small_patch16_224", bands=["B02"])

    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: SimpleNamespace(close=int))
    state = build("resnet").model.state_dict()
    downloads = []

    def download(url: str, path: str, **_: Any) -> None:
        downloads.append(url)
        torch.save(state, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        backbone = build("resnet", pretrained=True)
    assert downloads == [MODELS["resnet18_sentinel2_all_moco"].weights]
    assert backbone.source == downloads[0]
    path = download_url(BackboneSpec(name="torchgeo/a", bands=("B02",)), downloads[0])
    assert path == tmp_path / "checkpoints" / "resnet18_sentinel2_all_moco-59bfdff9.pth"
