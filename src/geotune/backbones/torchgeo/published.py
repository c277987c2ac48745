"""The weights that torchgeo offers for the networks of timm and torchvision.

Taken from the enumerations of weights of torchgeo 0.8.1, so that they can be listed without
importing it. A name is the network's with the entry's in lower case: `ResNet18_Weights`'
`SENTINEL2_ALL_MOCO` is `resnet18_sentinel2_all_moco`. Licences are those of the table of weights in
torchgeo's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from geotune.backbones.facts import Facts
from geotune.backbones.torchgeo.images import (
    CLOSP_S1,
    CLOSP_S2,
    ETM_SR,
    ETM_TOA,
    FMOW,
    OLI_SR,
    OLI_TIRS_TOA,
    S1,
    S2,
    S2_L2A,
    S2_NDVI,
    S2_RGB,
    S2_STANDARD,
    SATLAS_LANDSAT,
    SATLAS_RGB,
    SATLAS_S1,
    SATLAS_S2,
    SATLAS_S2_RGB,
    SECO_RGB,
    STREETS,
    TM_TOA,
    Images,
)

NETWORKS = (
    "resnet18",
    "resnet50",
    "resnet152",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_large_patch16_224",
    "vit_huge_patch14_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "swin_t",
    "swin_s",
    "swin_b",
    "swin_v2_t",
    "swin_v2_b",
)


@dataclass(frozen=True)
class Project:
    """Who made the weights: the paper and the licence."""

    paper: str
    licence: str


@dataclass(frozen=True)
class Published:
    """Weights of one name: the network, the images that it was trained on, and the rest."""

    network: str
    images: Images
    facts: Facts


def _project(paper: str, licence: str) -> Project:
    return Project(paper, f"{licence} (torchgeo's documentation)")


SSL4EO_L = _project("SSL4EO-L, arXiv 2306.09424", "CC0-1.0")
SSL4EO_S12 = _project("SSL4EO-S12, arXiv 2211.07044", "CC-BY-4.0")
FG_MAE = _project("Feature Guided Masked Autoencoder, arXiv 2310.18653", "CC-BY-4.0")
SOFTCON = _project("SoftCon, arXiv 2405.20462", "CC-BY-4.0")
DECUR = _project("DeCUR, arXiv 2309.05300", "Apache-2.0")
SECO = _project("Seasonal Contrast, arXiv 2103.16607", "Apache-2.0")
SSL4ECO = _project("SSL4Eco, arXiv 2504.18256", "MIT")
CLOSP = _project("CLOSP, arXiv 2507.10403", "OpenRAIL")
SATLAS = _project("SatlasPretrain, arXiv 2211.15660", "ODC-BY")
GASSL = Project("Geography-Aware Self-Supervised Learning, arXiv 2011.09980", "not stated")
MASK2FORMER = Project("Mask2Former, arXiv 2112.01527", "not stated by torchgeo")

_SSL4EO_L_HUB = ("torchgeo/ssl4eo_landsat", "1c88bb51b6e17a21dde5230738fa38b74bd74f76")
_SSL4EO_L_IMAGES = {
    "tm_toa": TM_TOA,
    "etm_toa": ETM_TOA,
    "etm_sr": ETM_SR,
    "oli_tirs_toa": OLI_TIRS_TOA,
    "oli_sr": OLI_SR,
}

_SSL4EO_L_FILES = {  # by network and sensor: the ends of the names of moco and simclr
    "resnet18": (
        ("tm_toa", "1c691b4f", "d2d38ace"),
        ("etm_toa", "bb88689c", "4d813f79"),
        ("etm_sr", "4f078acd", "8e8543b4"),
        ("oli_tirs_toa", "a3002f51", "b0635cc6"),
        ("oli_sr", "660e82ed", "7bced5be"),
    ),
    "resnet50": (
        ("tm_toa", "ba1ce753", "a1c93432"),
        ("etm_toa", "e9a84d5a", "70b5575f"),
        ("etm_sr", "1266cde3", "e5d185d7"),
        ("oli_tirs_toa", "de7f5e0f", "030cebfe"),
        ("oli_sr", "ff580dad", "94f78913"),
    ),
    "vit_small_patch16_224": (
        ("tm_toa", "a1c967d8", "7c2d9799"),
        ("etm_toa", "26d19bcf", "34fb12cb"),
        ("etm_sr", "eaa4674e", "a14c466a"),
        ("oli_tirs_toa", "c7c2cceb", "ad43e9a4"),
        ("oli_sr", "c9b8898d", "4e8f6102"),
    ),
}

# project, repository of the hub, revision, images, and the file of each name; a file that starts
# with the name has only its end here
_OTHERS: tuple[tuple[Project, str, str, Images, dict[str, str]], ...] = (
    (
        SSL4EO_S12,
        "torchgeo/resnet18_sentinel2_all_moco",
        "5b8cddc9a14f3844350b7f40b85bcd32aed75918",
        S2,
        {
            "resnet18_sentinel2_all_moco": "-59bfdff9.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/resnet18_sentinel2_rgb_moco",
        "e1c032e7785fd0625224cdb6699aa138bb304eec",
        S2_RGB,
        {
            "resnet18_sentinel2_rgb_moco": "-e3a335e3.pth",
        },
    ),
    (
        SECO,
        "torchgeo/resnet18_sentinel2_rgb_seco",
        "f8dcee692cf7142163b55a5c197d981fe0e717a0",
        SECO_RGB,
        {
            "resnet18_sentinel2_rgb_seco": "-cefca942.pth",
        },
    ),
    (
        GASSL,
        "torchgeo/resnet50_fmow_rgb_gassl",
        "fe8a91026cf9104f1e884316b8e8772d7af9052c",
        FMOW,
        {
            "resnet50_fmow_rgb_gassl": "-da43d987.pth",
        },
    ),
    (
        DECUR,
        "torchgeo/decur",
        "9328eeb90c686a88b30f8526ed757b4bc0f12027",
        S1,
        {
            "resnet50_sentinel1_all_decur": "rn50_ssl4eo-s12_sar_decur_ep100-f0e69ba2.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/resnet50_sentinel1_all_moco",
        "e79862c667853c10a709bdd77ea8ffbad0e0f1cf",
        S1,
        {
            "resnet50_sentinel1_all_moco": "-906e4356.pth",
        },
    ),
    (
        CLOSP,
        "DarthReca/CLOSP-Visual",
        "3bb8677c21dac56bea2dd7baa08d7871272db440",
        CLOSP_S1,
        {
            "resnet50_sentinel1_grd_closp": "closp-rn_s1_encoder-cacc90bc.pth",
            "resnet50_sentinel1_grd_geoclosp": "geoclosp-rn_s1_encoder-e63ae1af.pth",
            "vit_small_patch16_224_sentinel1_grd_closp": "closp-vs_s1_encoder-180f1e6e.pth",
            "vit_large_patch16_224_sentinel1_grd_closp": "closp-vl_s1_encoder-6f88d037.pth",
        },
    ),
    (
        SOFTCON,
        "wangyi111/softcon",
        "62ff465b2e7467dbfc70758ec1e9d08ab87fc46b",
        S1,
        {
            "resnet50_sentinel1_grd_softcon": "B2_rn50_softcon.pth",
        },
    ),
    (
        CLOSP,
        "DarthReca/CLOSP-Visual",
        "3bb8677c21dac56bea2dd7baa08d7871272db440",
        CLOSP_S2,
        {
            "resnet50_sentinel2_all_closp": "closp-rn_s2_encoder-183922a5.pth",
            "resnet50_sentinel2_all_geoclosp": "geoclosp-rn_s2_encoder-94c37f4a.pth",
            "vit_small_patch16_224_sentinel2_all_closp": "closp-vs_s2_encoder-1a3ee5a5.pth",
            "vit_large_patch16_224_sentinel2_all_closp": "closp-vl_s2_encoder-4a4f026a.pth",
        },
    ),
    (
        DECUR,
        "torchgeo/decur",
        "eba7ae5945d482a4319be046d34b552db5dd9950",
        S2,
        {
            "resnet50_sentinel2_all_decur": "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/resnet50_sentinel2_all_dino",
        "d7f14bf5530d70ac69d763e58e77e44dbecfec7c",
        S2,
        {
            "resnet50_sentinel2_all_dino": "-d6c330e9.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/resnet50_sentinel2_all_moco",
        "da4f3c9dbe09272eb902f3b37f46635fa4726879",
        S2,
        {
            "resnet50_sentinel2_all_moco": "-df8b932e.pth",
        },
    ),
    (
        SOFTCON,
        "wangyi111/softcon",
        "62ff465b2e7467dbfc70758ec1e9d08ab87fc46b",
        S2_STANDARD,
        {
            "resnet50_sentinel2_all_softcon": "B13_rn50_softcon.pth",
        },
    ),
    (
        SSL4ECO,
        "torchgeo/seco-eco",
        "aea279ea46572cfca5876ac1f9d8d8595fcdeb3b",
        S2_L2A,
        {
            "resnet50_sentinel2_all_seco_eco": "-90ec322f.pth",
        },
    ),
    (
        SSL4ECO,
        "torchgeo/seco-eco-ndvi",
        "44fae184c63b73e15a32be816e023957dc4c56c1",
        S2_NDVI,
        {
            "resnet50_sentinel2_all_ndvi_seco_eco": "-65292b83.pth",
        },
    ),
    (
        SATLAS,
        "torchgeo/satlas",
        "081d6607431bf36bdb59c223777cbb267131b8f2",
        SATLAS_S2,
        {
            "resnet50_sentinel2_mi_ms_satlas": "sentinel2_resnet50_mi_ms-da5413d2.pth",
            "resnet50_sentinel2_si_ms_satlas": "sentinel2_resnet50_si_ms-1f454cc6.pth",
            "resnet152_sentinel2_mi_ms_satlas": "sentinel2_resnet152_mi_ms-fd35b4bb.pth",
            "resnet152_sentinel2_si_ms_satlas": "sentinel2_resnet152_si_ms-4500c6cb.pth",
            "swin_v2_t_sentinel2_mi_ms_satlas": "sentinel2_swint_mi_ms-d8c659e3.pth",
            "swin_v2_t_sentinel2_si_ms_satlas": "sentinel2_swint_si_ms-bc68e396.pth",
            "swin_v2_b_sentinel2_mi_ms_satlas": "sentinel2_swinb_mi_ms-39c86721.pth",
            "swin_v2_b_sentinel2_si_ms_satlas": "sentinel2_swinb_si_ms-fe22a12c.pth",
        },
    ),
    (
        SATLAS,
        "torchgeo/satlas",
        "081d6607431bf36bdb59c223777cbb267131b8f2",
        SATLAS_S2_RGB,
        {
            "resnet50_sentinel2_mi_rgb_satlas": "sentinel2_resnet50_mi_rgb-e79bb7fe.pth",
            "resnet50_sentinel2_si_rgb_satlas": "sentinel2_resnet50_si_rgb-45fc6972.pth",
            "resnet152_sentinel2_mi_rgb_satlas": "sentinel2_resnet152_mi_rgb-67563ac5.pth",
            "resnet152_sentinel2_si_rgb_satlas": "sentinel2_resnet152_si_rgb-f4d24c3c.pth",
            "swin_v2_t_sentinel2_mi_rgb_satlas": "sentinel2_swint_mi_rgb-424d91f4.pth",
            "swin_v2_t_sentinel2_si_rgb_satlas": "sentinel2_swint_si_rgb-0c1a96e0.pth",
            "swin_v2_b_sentinel2_mi_rgb_satlas": "sentinel2_swinb_mi_rgb-4efa210c.pth",
            "swin_v2_b_sentinel2_si_rgb_satlas": "sentinel2_swinb_si_rgb-156a98d5.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/resnet50_sentinel2_rgb_moco",
        "efd9723b59a88e9dc1420dc1e96afb25b0630a3c",
        S2_RGB,
        {
            "resnet50_sentinel2_rgb_moco": "-2b57ba8b.pth",
        },
    ),
    (
        SECO,
        "torchgeo/resnet50_sentinel2_rgb_seco",
        "fbd07b02a8edb8fc1035f7957160deed4321c145",
        SECO_RGB,
        {
            "resnet50_sentinel2_rgb_seco": "-018bf397.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/vit_small_patch16_224_sentinel2_all_dino",
        "5b41dd418a79de47ac9f5be3e035405a83818a62",
        S2,
        {
            "vit_small_patch16_224_sentinel2_all_dino": "-36bcc127.pth",
        },
    ),
    (
        SSL4EO_S12,
        "torchgeo/vit_small_patch16_224_sentinel2_all_moco",
        "1cb683f6c14739634cdfaaceb076529adf898c74",
        S2,
        {
            "vit_small_patch16_224_sentinel2_all_moco": "-67c9032d.pth",
        },
    ),
    (
        SSL4EO_S12,
        "wangyi111/SSL4EO-S12",
        "75c72195d35201dc1fb210818993518c25da566b",
        S2,
        {
            "vit_small_patch16_224_sentinel2_all_mae": "B13_vits16_mae_ep99_enc.pth",
            "vit_base_patch16_224_sentinel2_all_mae": "B13_vitb16_mae_ep99_enc.pth",
            "vit_large_patch16_224_sentinel2_all_mae": "B13_vitl16_mae_ep99_enc.pth",
            "vit_huge_patch14_224_sentinel2_all_mae": "B13_vith14_mae_ep199_enc.pth",
        },
    ),
    (
        FG_MAE,
        "wangyi111/FGMAE",
        "24dd3077d7a99ecd454eaec7adb83d045d7fa122",
        S2,
        {
            "vit_small_patch16_224_sentinel2_all_fgmae": "B13_vits16_fgmae_ep99_enc.pth",
            "vit_base_patch16_224_sentinel2_all_fgmae": "B13_vitb16_fgmae_ep99_enc.pth",
            "vit_large_patch16_224_sentinel2_all_fgmae": "B13_vitl16_fgmae_ep99_enc.pth",
            "vit_huge_patch14_224_sentinel2_all_fgmae": "B13_vith14_fgmae_ep399_enc.pth",
        },
    ),
    (
        SSL4EO_S12,
        "wangyi111/SSL4EO-S12",
        "75c72195d35201dc1fb210818993518c25da566b",
        S1,
        {
            "vit_small_patch16_224_sentinel1_grd_mae": "B2_vits16_mae_ep99_enc.pth",
            "vit_base_patch16_224_sentinel1_grd_mae": "B2_vitb16_mae_ep99_enc.pth",
            "vit_large_patch16_224_sentinel1_grd_mae": "B2_vitl16_mae_ep99_enc.pth",
            "vit_huge_patch14_224_sentinel1_grd_mae": "B2_vith14_mae_ep199_enc.pth",
        },
    ),
    (
        FG_MAE,
        "wangyi111/FGMAE",
        "24dd3077d7a99ecd454eaec7adb83d045d7fa122",
        S1,
        {
            "vit_small_patch16_224_sentinel1_grd_fgmae": "B2_vits16_fgmae_ep99_enc.pth",
            "vit_base_patch16_224_sentinel1_grd_fgmae": "B2_vitb16_fgmae_ep99_enc.pth",
            "vit_large_patch16_224_sentinel1_grd_fgmae": "B2_vitl16_fgmae_ep99_enc.pth",
            "vit_huge_patch14_224_sentinel1_grd_fgmae": "B2_vith14_fgmae_ep399_enc.pth",
        },
    ),
    (
        SOFTCON,
        "wangyi111/softcon",
        "bae909781911f8ec034b4b959992fae17b973c0c",
        S2_STANDARD,
        {
            "vit_small_patch14_dinov2_sentinel2_all_softcon": "B13_vits14_softcon_enc.pth",
            "vit_base_patch14_dinov2_sentinel2_all_softcon": "B13_vitb14_softcon_enc.pth",
        },
    ),
    (
        SOFTCON,
        "wangyi111/softcon",
        "bae909781911f8ec034b4b959992fae17b973c0c",
        S1,
        {
            "vit_small_patch14_dinov2_sentinel1_grd_softcon": "B2_vits14_softcon_enc.pth",
            "vit_base_patch14_dinov2_sentinel1_grd_softcon": "B2_vitb14_softcon_enc.pth",
        },
    ),
    (
        MASK2FORMER,
        "blaz-r/swin_tiny_cityscapes_semantic_torchvision",
        "0fc235be19c60ae5873ee0e569561c4e43f403ba",
        STREETS,
        {
            "swin_t_cityscapes_semseg": "swin_tiny_cityscapes_semantic.pth",
        },
    ),
    (
        MASK2FORMER,
        "blaz-r/swin_small_cityscapes_semantic_torchvision",
        "97ea7dddaa2f62b3b5de85e16e2597f1635598d3",
        STREETS,
        {
            "swin_s_cityscapes_semseg": "swin_small_cityscapes_semantic.pth",
        },
    ),
    (
        MASK2FORMER,
        "blaz-r/swin_base_cityscapes_semantic_torchvision",
        "972003c5f18caaa5fc07f9db74ba2dc69eb6c051",
        STREETS,
        {
            "swin_b_cityscapes_semseg": "swin_base_cityscapes_semantic.pth",
        },
    ),
    (
        SATLAS,
        "torchgeo/satlas",
        "081d6607431bf36bdb59c223777cbb267131b8f2",
        SATLAS_RGB,
        {
            "swin_v2_b_naip_rgb_mi_satlas": "aerial_swinb_mi-326d69e1.pth",
            "swin_v2_b_naip_rgb_si_satlas": "aerial_swinb_si-e4169eb1.pth",
        },
    ),
    (
        SATLAS,
        "torchgeo/satlas",
        "081d6607431bf36bdb59c223777cbb267131b8f2",
        SATLAS_LANDSAT,
        {
            "swin_v2_b_landsat_mi_satlas": "landsat_swinb_mi-6b4a1cda.pth",
            "swin_v2_b_landsat_si_satlas": "landsat_swinb_si-4af978f6.pth",
        },
    ),
    (
        SATLAS,
        "torchgeo/satlas",
        "081d6607431bf36bdb59c223777cbb267131b8f2",
        SATLAS_S1,
        {
            "swin_v2_b_sentinel1_mi_satlas": "sentinel1_swinb_mi-f6c43d97.pth",
            "swin_v2_b_sentinel1_si_satlas": "sentinel1_swinb_si-3981c153.pth",
        },
    ),
)


def _published() -> dict[str, Published]:
    """Every name, in the order of the networks."""
    groups = [*_OTHERS]
    for network, sensors in _SSL4EO_L_FILES.items():
        begins = "vits16" if network.startswith("vit") else network
        for sensor, moco, simclr in sensors:
            files = {
                f"{network}_landsat_{sensor}_{method}": (
                    f"{begins}_landsat_{sensor}_{method}-{ending}.pth"
                )
                for method, ending in (("moco", moco), ("simclr", simclr))
            }
            groups.append((SSL4EO_L, *_SSL4EO_L_HUB, _SSL4EO_L_IMAGES[sensor], files))
    found = {}
    for project, repository, revision, images, files in groups:
        for name, file in files.items():
            file = f"{name}{file}" if file.startswith("-") else file
            facts = Facts(
                paper=project.paper,
                licence=project.licence,
                weights=f"https://huggingface.co/{repository}/resolve/{revision}/{file}",
                bands=images.bands,
                mean=images.mean,
                std=images.std,
                takes=("new_bands",),
            )
            found[name] = Published(_network(name), images, facts)
    return {
        name: found[name] for name in sorted(found, key=lambda n: (NETWORKS.index(_network(n)), n))
    }


def _network(name: str) -> str:
    return max((n for n in NETWORKS if name.startswith(f"{n}_")), key=len)


PUBLISHED: dict[str, Published] = _published()
