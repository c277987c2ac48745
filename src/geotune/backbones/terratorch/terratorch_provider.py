"""From a name of TerraTorch's to the file of its family."""

from __future__ import annotations

import difflib
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
    name: facts for family, _ in _FAMILIES for name, facts in family.items()
}


def terratorch_backbone(request: BackboneSpec) -> Backbone:
    """Build a backbone by TerraTorch's name, such as `prithvi_eo_v2_300`.

    Raises `GeotuneError` for a name that TerraTorch does not have, and for one that cannot be
    used on images of any size.
    """
    if "terratorch" not in sys.modules and Path("custom_modules").is_dir():
        raise GeotuneError(
            f"{Path('custom_modules').resolve()}: TerraTorch runs the code of a folder so called "
            "when it is imported; work in another folder, or give this one another name"
        )
    precision = torch.get_float32_matmul_precision()
    try:
        import terratorch  # noqa: F401
    except ImportError as error:
        raise request.not_installed(error) from error
    finally:
        torch.set_float32_matmul_precision(precision)  # one of TerraTorch's files lowers it
    for family, build in _FAMILIES:
        if request.model in family:
            return build(request)
    if terratorch_registry.knows(request.model):
        return terratorch_registry.registry_backbone(request)
    lower = {name.lower(): name for name in [*MODELS, *terratorch_registry.names()]}
    near = difflib.get_close_matches(request.model.lower(), lower, n=3)
    hint = f"; near it: {', '.join('terratorch/' + lower[n] for n in near)}" if near else ""
    raise GeotuneError(f"backbone.name {request.name}: unknown{hint}")
