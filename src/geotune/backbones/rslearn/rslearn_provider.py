"""Build rslearn's backbones, by model name."""

from __future__ import annotations

from collections.abc import Callable

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.rslearn import galileo, olmoearth, presto
from geotune.backbones.spec import BackboneSpec

_FAMILIES: tuple[tuple[dict[str, ModelInfo], Callable[[BackboneSpec], Backbone]], ...] = (
    (galileo.MODELS, galileo.galileo_backbone),
    (olmoearth.MODELS, olmoearth.olmoearth_backbone),
    (presto.MODELS, presto.presto_backbone),
)
MODELS: dict[str, ModelInfo] = {
    name: info for family, _ in _FAMILIES for name, info in family.items()
}


def rslearn_backbone(spec: BackboneSpec) -> Backbone:
    """Build a backbone such as `galileo_nano`; raises `GeotuneError` for an unknown name."""
    with spec.imports_provider():
        import einops  # noqa: F401
        import rslearn  # noqa: F401
    for family, build in _FAMILIES:
        if spec.model in family:
            return build(spec)
    raise spec.unknown_model_error(MODELS)
