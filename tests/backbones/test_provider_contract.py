"""The contract of backbones, tested with many models of every provider."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import geotune
from geotune.backbones.base import Backbone

S2 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
HLS = ("B02", "B03", "B04", "B8A", "B11", "B12")
RGB = ("B04", "B03", "B02")

BACKBONES: dict[str, dict[str, Any]] = {
    # plain ViT, with and without class and register tokens
    "timm/test_vit": {"bands": RGB},
    "timm/vit_tiny_patch16_224": {"bands": S2},
    "timm/vit_small_patch16_dinov3": {"bands": RGB},
    "timm/vit_pwee_patch16_reg1_gap_256": {"bands": RGB},
    "timm/eva02_tiny_patch14_224": {"bands": RGB},
    "timm/xcit_nano_12_p16_224": {"bands": RGB},
    # window attention, convolutions, mixtures
    "timm/swin_tiny_patch4_window7_224": {"bands": RGB},
    "timm/swinv2_tiny_window8_256": {"bands": RGB},
    "timm/test_convnext": {"bands": S2},
    "timm/test_resnet": {"bands": S2},
    "timm/test_efficientnet": {"bands": RGB},
    "timm/test_nfnet": {"bands": RGB},
    "timm/regnetx_002": {"bands": RGB},
    "timm/mobilenetv3_small_050": {"bands": RGB},
    "timm/pvt_v2_b0": {"bands": RGB},
    "timm/poolformer_s12": {"bands": RGB},
    "timm/test_mambaout": {"bands": RGB},
    # one image size, so images are processed in tiles
    "timm/test_vit_relpos": {"bands": RGB},
    # geospatial models
    "terratorch/prithvi_eo_tiny": {"bands": HLS},
    "terratorch/prithvi_eo_v2_tiny_tl": {"bands": HLS, "metadata": ("time", "location")},
    "terratorch/prithvi_eo_v1_100": {"bands": HLS, "timesteps": 3},
    "terratorch/clay_v15_tiny": {"bands": ("blue", "green", "red", "nir")},
    "terratorch/terramind_v1_tiny": {"bands": {"S2L2A": S2, "S1GRD": ("VV", "VH")}},
    "terratorch/ssl4eos12_resnet18_sentinel2_all_moco": {"bands": S2},
    "torchgeo/dofa_small_patch16_224": {"bands": S2},
    "torchgeo/panopticon_vitb14": {"bands": ("B02", "B04")},
    "torchgeo/swin_v2_t_sentinel2_si_ms_satlas": {"bands": ("B02", "B03", "B04", "B08")},
    "torchgeo/resnet18_sentinel2_all_moco": {"bands": S2},
    "rslearn/galileo_nano": {"bands": S2},
    "rslearn/olmoearth_v1_nano": {"bands": ("B02", "B03", "B04", "B08")},
    "rslearn/presto": {"bands": S2},
    "geotune/convnext_mini": {"bands": HLS, "new_bands": "mean"},
}
NEEDS = {"rslearn/olmoearth_v1_nano": "olmoearth_pretrain_minimal"}


def build(name: str, **changes: Any) -> Backbone:
    provider = name.partition("/")[0]
    pytest.importorskip(provider)
    torch.set_float32_matmul_precision("highest")  # importing terratorch lowers it
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    options = {**BACKBONES[name], "pretrained": False, **changes}
    return geotune.backbone(name, **options).eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_provider_models_keep_the_contract(name: str) -> None:
    backbone = build(name)
    # random weights do not depend on the global random state
    torch.manual_seed(7)
    assert build(name).fingerprint == backbone.fingerprint
    assert backbone.random_weights and backbone.licence == "none"

    inputs = backbone.example(37, 50)
    with torch.no_grad():
        features, again = backbone(**inputs), backbone(**inputs)
    padded = tuple(-(-side // backbone.size_divisor) * backbone.size_divisor for side in (37, 50))
    assert features.image_size == padded
    for tap, ours, second in zip(backbone.taps, features.maps, again.maps, strict=True):
        rows, columns = (round(side / tap.stride) for side in padded)
        assert ours.shape == (1, tap.channels, rows, columns), tap
        assert ours.dtype == torch.float32 and ours.isfinite().all()
        assert torch.equal(ours, second)

    # with the weights in the same order, the order of the bands does not matter
    bands = BACKBONES[name]["bands"]
    if not isinstance(bands, dict) and name.partition("/")[0] != "timm":
        reverse = build(name, bands=tuple(reversed(bands)))
        reverse.load_state_dict(_reverse_bands(backbone, reverse))
        with torch.no_grad():
            images = inputs["images"].flip(1)
            last_map = reverse(**{**inputs, "images": images}).maps[-1]
        torch.testing.assert_close(last_map, features.maps[-1], rtol=1e-4, atol=1e-4)


def _reverse_bands(backbone: Backbone, reverse: Backbone) -> dict[str, torch.Tensor]:
    """The weights with the columns of the first layer in the order of `reverse`.

    Random weights depend on the order of the bands; pretrained ones belong to their band.
    """
    count = len(backbone.bands)
    shapes = {key: value.shape for key, value in reverse.state_dict().items()}
    state = {}
    for key, value in backbone.state_dict().items():
        per_band = key in FIRST_LAYERS and value.ndim > 1 and value.shape[1] == count
        state[key] = value.flip(1) if per_band else value
        assert shapes[key] == value.shape
    return state


FIRST_LAYERS = (
    "model.patch_embed.proj.weight",
    "model.conv1.weight",
    "model.features.0.0.weight",
    "model.stem.0.weight",
)
