"""TerraTorch's names of torchgeo's models: DeCUR, MoCo, DINO and SoftCon on Sentinel, SSL4EO-L on
Landsat, Satlas, SeCo, GASSL and DOFA. They are built as torchgeo backbones.
"""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo import torchgeo_provider as torchgeo
from geotune.errors import GeotuneError

_LANDSAT = ("tm_toa", "etm_toa", "etm_sr", "oli_tirs_toa", "oli_sr")
_SENTINEL = (
    "resnet18_sentinel2_all_moco",
    "resnet18_sentinel2_rgb_moco",
    "resnet50_sentinel1_all_decur",
    "resnet50_sentinel1_all_moco",
    "resnet50_sentinel2_all_decur",
    "resnet50_sentinel2_all_dino",
    "resnet50_sentinel2_all_moco",
    "resnet50_sentinel2_all_softcon",
    "resnet50_sentinel2_rgb_moco",
    "vit_small_patch16_224_sentinel2_all_dino",
    "vit_small_patch16_224_sentinel2_all_moco",
)
_SATLAS = tuple(f"sentinel2_{images}_{bands}" for images in ("mi", "si") for bands in ("ms", "rgb"))

NAMES: dict[str, str] = {
    **{f"ssl4eos12_{name}": name for name in _SENTINEL},
    **{
        f"ssl4eol_{network}_landsat_{sensor}_{method}": f"{network}_landsat_{sensor}_{method}"
        for network in ("resnet18", "resnet50", "vit_small_patch16_224")
        for sensor in _LANDSAT
        for method in ("moco", "simclr")
        if (network[0], sensor, method) != ("v", "oli_tirs_toa", "moco")  # not in TerraTorch
    },
    "seco_resnet18_sentinel2_rgb_seco": "resnet18_sentinel2_rgb_seco",
    "seco_resnet50_sentinel2_rgb_seco": "resnet50_sentinel2_rgb_seco",
    "fmow_resnet50_fmow_rgb_gassl": "resnet50_fmow_rgb_gassl",
    **{f"satlas_resnet50_{name}_satlas": f"resnet50_{name}_satlas" for name in _SATLAS},
    "satlas_resnet152_sentinel2_mi_ms": "resnet152_sentinel2_mi_ms_satlas",
    "satlas_resnet152_sentinel2_mi_rgb": "resnet152_sentinel2_mi_rgb_satlas",
    "satlas_resnet152_sentinel2_si_ms_satlas": "resnet152_sentinel2_si_ms_satlas",
    "satlas_resnet152_sentinel2_si_rgb_satlas": "resnet152_sentinel2_si_rgb_satlas",
    **{f"satlas_swin_{size}_{n}": f"swin_v2_{size}_{n}_satlas" for size in "tb" for n in _SATLAS},
    "satlas_swin_b_naip_mi_rgb": "swin_v2_b_naip_rgb_mi_satlas",
    "satlas_swin_b_naip_si_rgb": "swin_v2_b_naip_rgb_si_satlas",
    "satlas_swin_b_landsat_mi_ms": "swin_v2_b_landsat_mi_satlas",
    "satlas_swin_b_landsat_mi_rgb": "swin_v2_b_landsat_si_satlas",  # as in TerraTorch
    "satlas_swin_b_sentinel1_mi": "swin_v2_b_sentinel1_mi_satlas",
    "satlas_swin_b_sentinel1_si": "swin_v2_b_sentinel1_si_satlas",
    "dofa_small_patch16_224": "dofa_small_patch16_224",
    "dofa_base_patch16_224": "dofa_base_patch16_224",
    "dofa_large_patch16_224": "dofa_large_patch16_224",
}
"""torchgeo's model name, by TerraTorch's."""

MODELS: dict[str, ModelInfo] = {name: torchgeo.MODELS[own] for name, own in NAMES.items()}


def torchgeo_backbone(spec: BackboneSpec) -> Backbone:
    """Build the torchgeo backbone behind a TerraTorch name."""
    own = spec.model_copy(update={"name": f"torchgeo/{NAMES[spec.model]}"})
    try:
        backbone = torchgeo.torchgeo_backbone(own)
    except GeotuneError as error:
        message = str(error).replace(own.name, spec.name)
        raise GeotuneError(message, code=error.code, key=error.key, file=error.file) from error
    backbone.name = spec.name
    return backbone
