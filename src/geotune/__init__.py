"""geotune: fine-tune geospatial foundation models on the hardware people have.

Used without a recipe:

    encoder = geotune.attach(geotune.backbone("timm/resnet18", bands=6), geotune.Est(reduction=8))

Everything here is imported when it is first asked for, so that `import geotune` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geotune.registry import METHODS, find

if TYPE_CHECKING:
    from geotune.backbones.base import Backbone as Backbone
    from geotune.backbones.create import backbone as backbone
    from geotune.errors import GeotuneError as GeotuneError
    from geotune.factory.build_model import load_adapter as load_adapter
    from geotune.methods.adapter import Adapter as Adapter
    from geotune.methods.adaptformer import AdaptFormer as AdaptFormer
    from geotune.methods.core.base import attach as attach
    from geotune.methods.dtl import Dtl as Dtl
    from geotune.methods.e3va import E3va as E3va
    from geotune.methods.est import Est as Est
    from geotune.methods.hf_peft import Peft as Peft
    from geotune.methods.lora import Lora as Lora
    from geotune.methods.lorand import LoRand as LoRand
    from geotune.methods.lst import Lst as Lst
    from geotune.methods.mona import Mona as Mona
    from geotune.methods.selective import BitFit as BitFit
    from geotune.methods.selective import Frozen as Frozen
    from geotune.methods.selective import Full as Full
    from geotune.methods.selective import Norm as Norm
    from geotune.methods.selective import Partial as Partial
    from geotune.methods.sidetune import SideTune as SideTune
    from geotune.methods.vit_adapter import VitAdapter as VitAdapter
    from geotune.methods.vpt import Vpt as Vpt

_HOME = {
    "Backbone": "geotune.backbones.base:Backbone",
    "GeotuneError": "geotune.errors:GeotuneError",
    "attach": "geotune.methods.core.base:attach",
    "backbone": "geotune.backbones.create:backbone",
    "load_adapter": "geotune.factory.build_model:load_adapter",
    **{m.implementation.partition(":")[2]: m.implementation for m in METHODS.values()},
}

__all__ = ["__version__", *_HOME]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("geotune")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'geotune' has no attribute {name!r}")
    return find(_HOME[name])


def __dir__() -> list[str]:
    return sorted(__all__)
