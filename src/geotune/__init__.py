"""geotune: fine-tune geospatial foundation models on the hardware people have.

Used without a recipe:

    encoder = geotune.attach(geotune.backbone("timm/resnet18", bands=6), geotune.Est(reduction=8))

Everything here is imported when it is first asked for, so that `import geotune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "backbone": "geotune.backbones.catalog",
    "Backbone": "geotune.backbones.base",
    "attach": "geotune.methods.base",
    "Full": "geotune.methods.full",
    "Frozen": "geotune.methods.frozen",
    "Lora": "geotune.methods.lora",
    "Est": "geotune.methods.est",
    "load_adapter": "geotune.build.model",
    "GeotuneError": "geotune.types",
}

__all__ = [
    "Backbone",
    "Est",
    "Frozen",
    "Full",
    "GeotuneError",
    "Lora",
    "__version__",
    "attach",
    "backbone",
    "load_adapter",
]


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
    return getattr(import_module(_HOME[name]), name)
