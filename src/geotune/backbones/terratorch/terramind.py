"""TerraMind (arXiv 2504.11171): one encoder of optical, radar and elevation images together.

Each modality has its own patch embedding; maps are means over the tokens of all modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint, run_blocks
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import hub_state_dict, load_weights
from geotune.errors import GeotuneError

PATCH = 16
_DEFAULT = "S2L2A"
_S2L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
MODALITIES: dict[str, tuple[str, ...]] = {
    "S2L2A": _S2L2A,
    "S2L1C": (*_S2L2A[:10], "B10", "B11", "B12"),
    "RGB": ("B04", "B03", "B02"),  # 0 to 255
    "S1GRD": ("VV", "VH"),  # dB
    "S1RTC": ("VV", "VH"),  # dB
    "DEM": ("DEM",),
}
KEYS = {
    "S2L2A": "untok_sen2l2a@224",
    "S2L1C": "untok_sen2l1c@224",
    "RGB": "untok_sen2rgb@224",
    "S1GRD": "untok_sen1grd@224",
    "S1RTC": "untok_sen1rtc@224",
    "DEM": "untok_dem@224",
}
_TOKENISED = ("LULC", "NDVI", "CAPTION", "COORDS")


def _info(hub: str, modalities: Sequence[str] = tuple(MODALITIES)) -> ModelInfo:
    first = hub.endswith("0.1-base")
    return ModelInfo(
        paper="TerraMind, arXiv 2504.11171",
        licence="not stated" if first else f"Apache-2.0 ({hub})",
        weights=hub,
        bands=_S2L2A,
        mean=MEANS_V01 if first else MEANS["S2L2A"],
        std=STDS_V01 if first else STDS["S2L2A"],
        modalities={name: MODALITIES[name] for name in modalities},
        supported_options=("modalities", "new_bands"),
    )


MEANS: dict[str, tuple[float, ...]] = {
    "S2L2A": (
        *(1390.458, 1503.317, 1718.197, 1853.91, 2199.1, 2779.975),
        *(2987.011, 3083.234, 3132.22, 3162.988, 2424.884, 1857.648),
    ),
    "S2L1C": (
        *(2357.089, 2137.385, 2018.788, 2082.986, 2295.651, 2854.537, 3122.849),
        *(3040.56, 3306.481, 1473.847, 506.07, 2472.825, 1838.929),
    ),
    "RGB": (87.271, 80.931, 66.667),
    "S1GRD": (-12.599, -20.293),
    "S1RTC": (-10.93, -17.329),
    "DEM": (670.665,),
}
STDS: dict[str, tuple[float, ...]] = {
    "S2L2A": (
        *(2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926),
        *(1820.257, 1871.918, 1753.829, 1797.379, 1434.261, 1334.311),
    ),
    "S2L1C": (
        *(1624.683, 1675.806, 1557.708, 1833.702, 1823.738, 1733.977, 1732.131),
        *(1679.732, 1727.26, 1024.687, 442.165, 1331.411, 1160.419),
    ),
    "RGB": (58.767, 47.663, 42.631),
    "S1GRD": (5.195, 5.890),
    "S1RTC": (4.391, 4.459),
    "DEM": (951.272,),
}
MEANS_V01 = (
    *(794.311, 925.161, 1183.128, 1338.041, 1667.254, 2233.633),
    *(2460.96, 2555.569, 2619.542, 2703.298, 2406.497, 1841.645),
)
STDS_V01 = (
    *(1164.883, 1205.586, 1223.713, 1399.638, 1403.298, 1378.513),
    *(1434.924, 1491.141, 1454.089, 1660.395, 1473.248, 1365.080),
)

_HUB = "ibm-esa-geospatial/TerraMind-1.0-"
MODELS: dict[str, ModelInfo] = {
    "terramind_v01_base": _info("FAST-EO/TerraMind-0.1-base", ["S2L2A"]),
    "terramind_v1_tiny": _info(f"{_HUB}tiny"),
    "terramind_v1_small": _info(f"{_HUB}small"),
    "terramind_v1_base": _info(f"{_HUB}base"),
    "terramind_v1_large": _info(f"{_HUB}large"),
}


class TerramindBackbone(Backbone):
    """TerraMind's encoder of one or several modalities."""

    def __init__(
        self, model: nn.Module, spec: BackboneSpec, matches: Mapping[str, BandMatch], **kwargs: Any
    ) -> None:
        super().__init__(model, spec, size_divisor=PATCH, **kwargs)
        self._channels = {KEYS[name]: len(match.columns) for name, match in matches.items()}
        if all(match.all_known for match in matches.values()):
            means: tuple[float, ...] = ()
            stds: tuple[float, ...] = ()
            for name, match in matches.items():
                mean, std = _statistics(spec.model, name)
                means, stds = means + match.select(mean), stds + match.select(std)
            self.set_statistics(means, stds)
        self.notes = tuple(f"{name}: {match.note}" for name, match in matches.items() if match.note)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks."""
        return list(self.model.encoder)  # type: ignore[arg-type]

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        tokens = []
        start = 0
        for key, count in self._channels.items():
            embedded = model.encoder_embeddings[key](images[:, start : start + count])
            tokens.append(embedded["x"] + embedded["emb"])
            start += count
        x = torch.cat(tokens, dim=1)

        def to_map(x: Tensor) -> Tensor:
            mean = x.reshape(x.shape[0], len(tokens), rows * columns, -1).mean(1)
            return mean.transpose(1, 2).reshape(x.shape[0], -1, rows, columns)

        run_blocks(x, self.blocks, model.encoder_norm, to_map, emit, out_indices)
        return None


def terramind_backbone(spec: BackboneSpec) -> TerramindBackbone:
    """Build a TerraMind encoder; `weights` is the published checkpoint.

    Bands without a modality are of Sentinel-2 L2A.
    """
    from terratorch.models.backbones.terramind.model import terramind_register
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options, metadata=info.metadata)
    matches = _fits(spec, info)
    model = TERRATORCH_BACKBONE_REGISTRY.build(
        spec.model, modalities=[KEYS[name] for name in matches], pretrained=False
    )
    # position encodings and zero biases are not part of the checkpoint
    fixed = dict(model.named_buffers())
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    source = None
    if spec.loads_weights:
        published = terramind_register.pretrained_weights.get(spec.model, {})
        loaded, source = hub_state_dict(spec, info.weights, published.get("hf_hub_filename", ""))
        state = {**loaded, **fixed}
    for name, match in matches.items():
        key = f"encoder_embeddings.{KEYS[name]}.proj.weight"
        embedding = model.encoder_embeddings[KEYS[name]]
        pixels = PATCH * PATCH
        if key in state and state[key].shape[-1] == pixels * len(info.modalities[name]):
            columns = state[key].unflatten(1, (pixels, -1))  # bands of each pixel
            state[key] = match.fit_weight(columns, dim=2).flatten(1)
        embedding.proj = nn.Linear(
            pixels * len(match.columns), embedding.proj.out_features, bias=False
        )
    load_weights(model, state, source or "random weights", spec.name)
    return TerramindBackbone(model, spec, matches, licence=info.licence, source=source)


def _fits(spec: BackboneSpec, info: ModelInfo) -> dict[str, BandMatch]:
    """The band match of each modality, in the order of the image channels."""
    matches: dict[str, BandMatch] = {}
    for given, bands in (spec.modalities or {_DEFAULT: spec.bands}).items():
        name = {"S2RGB": "RGB", "S1": "S1GRD"}.get(given.upper(), given.upper())
        if name not in info.modalities:
            reason = (
                "needs the tokens of a separate tokenizer, which geotune does not run"
                if name in _TOKENISED
                else "is unknown"
            )
            raise GeotuneError(
                f"backbone.bands: modality {given} {reason}; {spec.name} supports "
                f"{', '.join(info.modalities)}",
                code="band-unknown",
                key="backbone.bands",
            )
        if name in matches:
            raise GeotuneError(
                f"backbone.bands: modality {name} is named twice; name it once",
                code="band-duplicate",
                key="backbone.bands",
            )
        matches[name] = match_bands(spec.with_bands(bands), info.modalities[name])
    return matches


def _statistics(model: str, modality: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if model == "terramind_v01_base":
        return MEANS_V01, STDS_V01
    return MEANS[modality], STDS[modality]
