"""torchgeo's families: parity with torchgeo itself, bands by name, and the contract of a backbone.

The networks are made small: what is tested is the way through them, not their size.
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
from geotune.errors import GeotuneError
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
    shape = {"encoder_dim": 32, "encoder_depth": 4, "num_heads": 16}  # heads as torchgeo has them
    monkeypatch.setitem(croma.SHAPES, "croma_base", shape)
    monkeypatch.setitem(swin._HEADS, 16, [1, 2, 4, 4])
    monkeypatch.setitem(swin.SHAPES, "swin_t", {"width": 16, "third": 2, "window": 7})
    monkeypatch.setitem(swin.SHAPES, "swin_v2_t", {"width": 16, "third": 2, "window": 8})


def build(family: str, bands: Any = None, **options: Any) -> Any:
    name, own = FAMILIES[family]
    options = {"pretrained": False, **options}
    return geotune.backbone(f"torchgeo/{name}", bands=own if bands is None else bands, **options)


def awake(backbone: Any) -> Any:
    """The backbone as if it were trained: nothing is zero or nearly so, and all norms are real."""
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
def test_every_block_is_a_tap_and_maps_of_any_size_are_as_the_taps_say(family: str) -> None:
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
def test_bands_go_by_name_and_not_by_place(family: str) -> None:
    own = FAMILIES[family][1]
    order = list(range(len(own)))[::-1]
    here, there = build(family).eval(), build(family, [own[i] for i in order]).eval()
    image = images(len(own))
    with torch.no_grad():
        ours, theirs = there(image[:, order]).maps, here(image).maps
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # sums in another order
        assert not torch.allclose(there(image).maps[-1], theirs[-1], atol=1e-3)


@every_family
def test_random_weights_are_the_same_in_every_build(family: str) -> None:
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
def test_weights_come_back_from_a_file_and_others_are_refused(family: str, tmp_path: Path) -> None:
    published = awake(build(family))  # of all the model's bands, so a state dict as published
    state = published.model.state_dict()
    if family == "croma":  # a state dict for each part
        parts = {name.partition(".")[0] for name in state}
        state = {
            part: {k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{part}.")}
            for part in parts
        }
    else:
        state["head.weight"] = torch.zeros(1)  # is left out
    torch.save(state, tmp_path / "w.pth")
    backbone = build(family, weights=tmp_path / "w.pth").eval()
    assert not backbone.random_weights
    assert backbone.source == str(tmp_path / "w.pth")
    assert backbone.licence == MODELS[FAMILIES[family][0]].licence
    image = images(len(backbone.bands))
    with torch.no_grad():
        close(backbone(image).maps, published(image).maps)

    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(GeotuneError, match=r"other\.pth: these are no weights of torchgeo/"):
        build(family, weights=tmp_path / "other.pth")


@every_family
def test_every_method_trains_what_it_says(
    family: str, try_every_method: Callable[..., set[str]]
) -> None:
    refused = {
        "croma": {"vpt", "vpt-shallow"},
        "swin": PLAIN_ONLY | {"peft-oft"},
        "swin_v2": PLAIN_ONLY | {"peft-oft"},
        "resnet": PLAIN_ONLY | NEED_AN_MLP,
    }
    assert try_every_method(awake(build(family))) == refused.get(family, set())


@every_family
def test_no_parameter_is_dead(family: str) -> None:
    encoder = geotune.attach(awake(build(family)), geotune.Full(stem_width=0))
    frozen = {name for name, _ in encoder.named_parameters()} - set(encoder.trainable_names())
    assert frozen <= {"backbone.model.pos_embed"}


def test_lora_updates_the_attention_of_a_swin() -> None:
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
    ("options", "message"),
    [
        ({"patch_size": 8}, "patch_size 8: .* has a fixed patch"),
        ({"timesteps": 2}, "timesteps 2: .* takes one date"),
        ({"metadata": ["time"]}, "metadata time: .* takes none"),
    ],
)
@every_family
def test_options_that_no_family_takes_are_refused(
    family: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeotuneError, match=message):
        build(family, **options)


@every_family
def test_options_of_other_families_are_refused(family: str) -> None:
    takes = MODELS[FAMILIES[family][0]].supported_options
    offered = {"gsd": 10.0, "wavelengths": {FAMILIES[family][1][0]: 0.5}, "new_bands": "mean"}
    for option, value in offered.items():
        if option in takes:
            build(family, **{option: value})
        else:
            with pytest.raises(GeotuneError, match=rf"backbone\.{option}"):
                build(family, **{option: value})


@pytest.mark.parametrize("family", ["croma", "scalemae", "swin_v2", "resnet", "vit"])
def test_bands_that_a_model_never_saw_are_refused_or_start_from_the_mean(family: str) -> None:
    known = FAMILIES[family][1][1]
    with pytest.raises(GeotuneError, match="does not know LST"):
        build(family, [known, "LST"])
    backbone = build(family, [known, "LST"], new_bands="mean")
    assert "its own bands: LST" in " ".join(backbone.notes)
    assert backbone.normalization is None
    assert backbone(images(2)).maps[-1].isfinite().all()


# ---------------------------------------------------------------- parity with torchgeo
def last_tokens(model: nn.Module, blocks: Any, *inputs: Any) -> Tensor:
    """What the last of the blocks gives when the whole model runs."""
    found: list[Tensor] = []
    hook = blocks[-1].register_forward_hook(lambda _m, _i, output: found.append(output))
    with torch.no_grad():
        model(*inputs)
    hook.remove()
    return found[0]


def test_dofa_is_torchgeos() -> None:
    bands = ["B04", "VV", "swir1", "mine"]
    ours = awake(build("dofa", bands, wavelengths={"mine": 1.3}))
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


def test_panopticon_is_torchgeos() -> None:
    bands = ["B02", "nir", "VH", "HV_DESCENDING", "mine"]
    ours = awake(build("panopticon", bands, wavelengths={"mine": 1.3731}))
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


def test_panopticon_without_radar_trains_no_embedding_of_radar() -> None:
    frozen = [n for n, p in build("panopticon", ["B02"]).named_parameters() if not p.requires_grad]
    assert [name.rpartition(".")[2] for name in frozen] == [
        *("embed_transmit", "embed_receive", "embed_orbit")
    ]
    assert all(p.requires_grad for p in build("panopticon", ["B02", "VV"]).parameters())


@pytest.mark.parametrize("gsd", [None, 10.0])
def test_scalemae_is_torchgeos(gsd: float | None) -> None:
    ours = awake(build("scalemae", gsd=gsd))
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
    assert ("1 m are assumed" in " ".join(ours.notes)) == (gsd is None)


def test_scalemae_knows_the_place_in_a_wide_image() -> None:
    backbone = build("scalemae", gsd=5.0)
    wide, square = (
        backbone._positions_encoding(grid, torch.device("cpu")) for grid in ((2, 5), (5, 5))
    )
    torch.testing.assert_close(wide.reshape(2, 5, -1), square.reshape(5, 5, -1)[:2], rtol=0, atol=0)
    with pytest.raises(GeotuneError, match=r"gsd -1"):
        build("scalemae", gsd=-1.0)


@pytest.mark.parametrize("modalities", [("S1",), ("S2",), ("S1", "S2"), ("S2", "S1")])
def test_croma_is_torchgeos(modalities: tuple[str, ...]) -> None:
    theirs_of = {"S1": "sar", "S2": "optical"}
    ours = awake(build("croma", {m: croma.BANDS[m] for m in modalities}))
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


def test_cromas_distances_are_those_of_torchgeo_and_of_rectangles() -> None:
    from torchgeo.models.croma import get_2dalibi

    here = torch.device("cpu")
    close(croma.distance_bias((5, 5), 16, here), get_2dalibi(num_heads=16, num_patches=25))
    square = croma.distance_bias((5, 5), 16, here).reshape(16, 5, 5, 5, 5)
    wide = croma.distance_bias((2, 5), 16, here).reshape(16, 2, 5, 2, 5)
    torch.testing.assert_close(wide, square[:, :2, :, :2], rtol=0, atol=0)


def test_croma_sorts_bands_into_modalities_and_refuses_others() -> None:
    mixed = build("croma", ["B04", "VV", "B03"]).eval()
    named = build("croma", {"S2": ["B04", "B03"], "S1": ["VV"]}).eval()
    image = images(3, 16, 16)
    with torch.no_grad():
        close(mixed(image).maps, named(image[:, [0, 2, 1]]).maps)
    assert len(build("croma", ["VV"]).taps) == 2
    with pytest.raises(GeotuneError, match="does not know the modality DEM; it knows S1, S2"):
        build("croma", {"DEM": ["DEM"]})
    with pytest.raises(GeotuneError, match="does not know B10"):
        build("croma", ["B10"])
    assert mixed.mean_std == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (256, 320)])
@pytest.mark.parametrize("family", ["swin", "swin_v2"])
def test_swin_is_torchvisions(family: str, size: tuple[int, int]) -> None:
    from torchvision.models import swin_transformer as provider

    ours = awake(build(family))
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


def test_keys_of_swin_v2_have_no_bias_and_it_stays_so() -> None:
    ours = build("swin_v2")
    ours(images(9)).maps[-1].square().mean().backward()
    for block in ours.blocks:
        assert not block.attn.qkv.bias.grad.chunk(3)[1].any()


@pytest.mark.parametrize("family", ["resnet", "vit", "dinov2"])
def test_resnets_and_vits_are_torchgeos(family: str) -> None:
    ours = awake(build(family))
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
def test_networks_of_full_size_are_torchgeos(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # not the small ones
    with torch.device("meta"):
        if name in swin.SHAPES:
            ours, theirs = swin._build(name, 3), getattr(torchgeo.models, name)()
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
    if name == "swin_b":  # without weights torchgeo builds it with torchvision's windows
        assert ours_of.pop("features.1.0.attn.relative_position_bias_table") == (23 * 23, 4)
        ours_of = {k: v for k, v in ours_of.items() if "relative_position" not in k}
        theirs_of = {k: v for k, v in theirs_of.items() if "relative_position" not in k}
    assert ours_of == theirs_of


# ---------------------------------------------------------------- bands and units
def test_bands_of_unknown_wavelength_are_refused_with_advice() -> None:
    for family in ("dofa", "panopticon"):
        with pytest.raises(GeotuneError, match=r"wavelength of LST.*backbone\.wavelengths=\{LST"):
            build(family, ["B02", "LST"])
        with pytest.raises(GeotuneError, match=r"wavelengths B02: 490: expected micrometres"):
            build(family, ["B02"], wavelengths={"B02": 490.0})
    told = {"B02": 0.48, "B03": 0.55}  # a file may say them of more bands than are used
    assert build("dofa", ["B02"], wavelengths=told).wavelengths_um == (0.48,)


def test_landsat_has_its_own_numbers_and_everyones_colours() -> None:
    name = "torchgeo/resnet18_landsat_oli_sr_moco"

    def of(*bands: str) -> Backbone:
        return geotune.backbone(name, bands=bands, pretrained=False).eval()

    image = images(2, 64, 64)
    by_number = of("SR_B4", "SR_B5")
    with torch.no_grad():
        expected = by_number(image).maps
        for bands in (("red", "nir"), ("B4", "b05")):
            close(of(*bands)(image).maps, expected)
        close(of("nir", "red")(image.flip(1)).maps, expected)
    assert "without SR_B1 (coastal)" in by_number.notes[0]
    for stranger in ("B8A", "B12", "cirrus", "rededge1"):
        with pytest.raises(GeotuneError, match=rf"does not know {stranger}; .* SR_B4 \(red\)"):
            of("red", stranger)
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
def test_normalisations_are_those_of_torchgeo(
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
def test_the_table_is_that_of_torchgeo() -> None:
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
        found = False
        for step in weights.transforms.modules():
            if type(step).__name__ == "Normalize":  # one after the other
                found = True
                offset = offset + scale * torch.tensor(step.mean, dtype=torch.float32)
                scale = scale * torch.tensor(step.std, dtype=torch.float32)
        if not name.endswith("_seco"):
            assert found == bool(kind.scale), name
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
def test_addresses_of_weights_are_those_of_torchgeo(module: Any, enum: str) -> None:
    if not hasattr(torchgeo.models, enum):
        pytest.skip(f"torchgeo {torchgeo.__version__} calls {enum} otherwise")
    urls = [w.url.replace("//hf.co/", "//huggingface.co/") for w in getattr(torchgeo.models, enum)]
    assert set(urls) <= {info.weights for info in module.MODELS.values()}


def test_weights_without_a_final_norm_start_with_none(tmp_path: Path) -> None:
    state = awake(build("vit")).model.state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("norm.")}, tmp_path / "w.pth")
    backbone = build("vit", weights=tmp_path / "w.pth")
    assert "no final norm" in backbone.notes[-1]
    assert torch.equal(backbone.model.norm.weight, torch.ones(32))


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(GeotuneError, match=r"unknown; near it: .*torchgeo/dofa_base_patch16_224"):
        geotune.backbone("torchgeo/dofa_base_patch16", bands=3)
    with pytest.raises(
        GeotuneError, match=r"unknown; near it: .*torchgeo/resnet152_sentinel2_mi_ms"
    ):
        geotune.backbone("torchgeo/resnet152", bands=3)
    with pytest.raises(GeotuneError, match=r"torchgeo/zzz: unknown$"):
        geotune.backbone("torchgeo/zzz", bands=3)


@pytest.mark.parametrize("family", ["dofa", "croma", "panopticon", "scalemae"])
def test_a_missing_torchgeo_is_named(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo.models", None)
    with pytest.raises(GeotuneError, match=r"not installed.*pip install 'geotune\[torchgeo\]'"):
        build(family)


def test_weights_are_fetched_once_and_their_absence_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(GeotuneError, match=r"resnet18_sent.*cannot be fetched.*backbone\.weights="):
        build("resnet", pretrained=True)
    with pytest.raises(GeotuneError, match="no pretrained weights are published"):
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
    path, _ = download_url(BackboneSpec(name="torchgeo/a", bands=("B02",)), downloads[0])
    assert path == tmp_path / "checkpoints" / "resnet18_sentinel2_all_moco-59bfdff9.pth"
