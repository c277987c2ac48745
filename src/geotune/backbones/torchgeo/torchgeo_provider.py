"""From a name of torchgeo's to the file of its family."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo import croma, dofa, panopticon, resnet_vit, scalemae, swin
from geotune.errors import GeotuneError

Build = Callable[[BackboneSpec], Backbone]

MODELS: dict[str, ModelInfo] = {
    **dofa.MODELS,
    **croma.MODELS,
    **panopticon.MODELS,
    **scalemae.MODELS,
    **swin.MODELS,
    **resnet_vit.MODELS,
}


def torchgeo_backbone(request: BackboneSpec) -> Backbone:
    """Build a backbone by torchgeo's name, such as `dofa_base_patch16_224`, or
    `resnet50_sentinel2_all_moco`: a network and an entry of its weights."""
    families: dict[str, Build] = {
        **dict.fromkeys(dofa.MODELS, dofa.dofa_backbone),
        **dict.fromkeys(croma.MODELS, croma.croma_backbone),
        **dict.fromkeys(panopticon.MODELS, panopticon.panopticon_backbone),
        **dict.fromkeys(scalemae.MODELS, scalemae.scalemae_backbone),
        **dict.fromkeys(swin.MODELS, swin.swin_backbone),
        **dict.fromkeys(resnet_vit.MODELS, resnet_vit.resnet_vit_backbone),
    }
    if request.model in families:
        return families[request.model](request)
    begins = [name for name in MODELS if request.model and name.startswith(f"{request.model}_")]
    near = begins or difflib.get_close_matches(request.model, MODELS, n=3)
    hint = f"; near it: {', '.join('torchgeo/' + n for n in near)}" if near else ""
    raise GeotuneError(f"backbone.name {request.name}: unknown{hint}")
