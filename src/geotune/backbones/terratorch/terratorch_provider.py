"""Build TerraTorch's backbones, by model name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.terratorch import aliases, clay, prithvi, terramind, terratorch_registry
from geotune.errors import GeotuneError

_FAMILIES: tuple[tuple[dict[str, ModelInfo], Callable[[BackboneSpec], Backbone]], ...] = (
    (prithvi.MODELS, prithvi.prithvi_backbone),
    (clay.MODELS, clay.clay_backbone),
    (terramind.MODELS, terramind.terramind_backbone),
    (aliases.MODELS, aliases.torchgeo_backbone),
    (terratorch_registry.MODELS, terratorch_registry.registry_backbone),
)
MODELS: dict[str, ModelInfo] = {
    name: info for family, _ in _FAMILIES for name, info in family.items()
}


def terratorch_backbone(spec: BackboneSpec) -> Backbone:
    """Build a backbone by TerraTorch's name, such as `prithvi_eo_v2_300`.

    Raises `GeotuneError` for an unknown name and for models without usable feature maps.
    """
    if "terratorch" not in sys.modules and Path("custom_modules").is_dir():
        raise GeotuneError(
            f"{Path('custom_modules').resolve()}: TerraTorch executes a folder of this name on "
            "import; run geotune from another folder, or rename this one",
            code="backbone-code",
            key="backbone.name",
            file="custom_modules",
        )
    precision = torch.get_float32_matmul_precision()
    try:
        with spec.imports_provider():
            import terratorch  # noqa: F401
    finally:
        torch.set_float32_matmul_precision(precision)  # importing TerraTorch lowers it
    # TerraTorch's own names of its models may have its name in front
    known = spec.model.removeprefix("terratorch_")
    for family, build in _FAMILIES:
        if known in family:
            return build(spec.model_copy(update={"name": f"terratorch/{known}"}))
    if terratorch_registry.knows(known):
        named = spec.model_copy(update={"name": f"terratorch/{known}"})
        return terratorch_registry.registry_backbone(named)
    raise spec.unknown_model_error([*MODELS, *terratorch_registry.names()])
