"""Custom backbones, built by a function in a Python file of the user.

Naming such a file runs its code. Recipes may do so; for adapters the user has to confirm the file
(see `factory/build_model.py`).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError


def python_backbone(spec: BackboneSpec) -> Backbone:
    """Call the function of `FILE.py:FUNCTION`, such as `models/mine.py:build`, with `spec`.

    Raises `GeotuneError` if the file or function is missing, the file's code fails, or the
    function does not return a `Backbone`.
    """
    file, colon, function = spec.model.rpartition(":")
    path = Path(file)
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise GeotuneError(
            f"backbone.name {spec.name}: expected python/FILE.py:FUNCTION, such as "
            "python/models/mine.py:build",
            code="backbone-unknown",
            key="backbone.name",
        )
    if not path.is_file():
        raise GeotuneError(
            f"backbone.name {spec.name}: file not found: {path.resolve()}; check the path",
            code="file-missing",
            key="backbone.name",
            file=path,
        )

    def invalid(message: str) -> GeotuneError:
        return GeotuneError(
            f"{path}: {message}", code="backbone-code", key="backbone.name", file=path
        )

    name = f"geotune_own_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # so that its classes can be pickled
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise invalid(f"fails with {type(error).__name__}: {error}") from error
    build = getattr(module, function, None)
    if not callable(build):
        raise invalid(f"has no function {function}")
    built = build(spec)
    if not isinstance(built, Backbone):
        raise invalid(f"{function} returns {type(built).__name__}, expected a geotune.Backbone")
    return built
