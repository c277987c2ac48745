"""geotune: fine-tune geospatial foundation models on the hardware people have.

Used without a recipe:

    encoder = geotune.attach(geotune.backbone("timm/resnet18", bands=6), geotune.Est(reduction=8))

Everything here is imported when it is first asked for, so that `import geotune` costs nothing.
"""

from __future__ import annotations

from typing import Any

from geotune.registry import METHODS, find

_HOME = {
    "Backbone": "geotune.backbones.base:Backbone",
    "GeotuneError": "geotune.errors:GeotuneError",
    "attach": "geotune.methods.core.base:attach",
    "backbone": "geotune.backbones.create:backbone",
    "load_adapter": "geotune.factory.build_model:load_adapter",
    **{place.partition(":")[2]: place for place in METHODS.values()},
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
