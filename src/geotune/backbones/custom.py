"""Backbones of the user's own: a function in a Python file.

Naming such a file runs its code. A recipe may name one; an adapter may not, unless its user says
so (`factory/build_model.py`).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError


def python_backbone(request: BackboneSpec) -> Backbone:
    """Build `FILE.py:FUNCTION`, such as `models/mine.py:build`; the function gets the request.

    Raises `GeotuneError` where the file or the function is not there, where its code fails, and
    where it gives something else than a `Backbone`.
    """
    file, colon, function = request.model.rpartition(":")
    path = Path(file)
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise GeotuneError(
            f"backbone.name {request.name}: expected python/FILE.py:FUNCTION, such as "
            "python/models/mine.py:build"
        )
    if not path.is_file():
        raise GeotuneError(f"backbone.name {request.name}: there is no file {path.resolve()}")
    name = f"geotune_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes of the file can then be pickled, and say where they are
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise GeotuneError(f"{path}: fails with {type(error).__name__}: {error}") from error
    build = getattr(module, function, None)
    if not callable(build):
        raise GeotuneError(f"{path}: has no function {function}")
    built = build(request)
    if not isinstance(built, Backbone):
        raise GeotuneError(
            f"{path}: {function} gives {type(built).__name__}, expected a geotune.Backbone"
        )
    return built
