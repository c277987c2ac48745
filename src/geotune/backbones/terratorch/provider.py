"""From a name of TerraTorch's to the file of its family."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from geotune.backbones.base import Backbone
from geotune.backbones.facts import Facts
from geotune.backbones.request import Request
from geotune.backbones.terratorch import prithvi
from geotune.types import GeotuneError

MODELS: dict[str, Facts] = {**prithvi.MODELS}


def terratorch_backbone(request: Request) -> Backbone:
    """Build a backbone by TerraTorch's name, such as `prithvi_eo_v2_300`."""
    try:
        import terratorch  # noqa: F401
    except ImportError as error:
        raise GeotuneError(
            f"backbone.name {request.name}: {error.name} is not installed; "
            "install it with: pip install 'geotune[terratorch]'"
        ) from error
    families: dict[str, Callable[[Request], Backbone]] = {
        name: prithvi.prithvi_backbone for name in prithvi.MODELS
    }
    if request.model in families:
        return families[request.model](request)
    near = difflib.get_close_matches(request.model, MODELS, n=3)
    hint = f"; near it: {', '.join('terratorch/' + n for n in near)}" if near else ""
    raise GeotuneError(f"backbone.name {request.name}: unknown{hint}")
