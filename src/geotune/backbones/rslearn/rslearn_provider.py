"""From a name of rslearn's models to the file of its family."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.rslearn import galileo, olmoearth, presto
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError

MODELS: dict[str, ModelInfo] = {**galileo.MODELS, **olmoearth.MODELS, **presto.MODELS}


def rslearn_backbone(request: BackboneSpec) -> Backbone:
    """Build a backbone such as `galileo_nano`."""
    try:
        import einops  # noqa: F401
        import rslearn  # noqa: F401
    except ImportError as error:
        raise request.not_installed(error) from error
    families: dict[str, Callable[[BackboneSpec], Backbone]] = {
        **dict.fromkeys(galileo.MODELS, galileo.galileo_backbone),
        **dict.fromkeys(olmoearth.MODELS, olmoearth.olmoearth_backbone),
        **dict.fromkeys(presto.MODELS, presto.presto_backbone),
    }
    if request.model in families:
        return families[request.model](request)
    near = difflib.get_close_matches(request.model, MODELS, n=3)
    hint = f"near it: {', '.join('rslearn/' + name for name in near)}; " if near else ""
    known = ", ".join(f"rslearn/{name}" for name in MODELS)
    raise GeotuneError(f"backbone.name {request.name}: unknown; {hint}known: {known}")
