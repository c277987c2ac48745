"""Custom backbones, built by a function in a Python file of the user."""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.utils.python_file import load_object


def python_backbone(spec: BackboneSpec) -> Backbone:
    """Call the function of `python/FILE.py:FUNCTION`, such as `python/models/mine.py:build`.

    Raises `GeotuneError` if the file or function is missing, the file's code fails, or the
    function does not return a `Backbone`.
    """
    build, invalid = load_object(
        spec.name, key="backbone.name", code="backbone-code", unknown="backbone-unknown"
    )
    built = build(spec)
    if not isinstance(built, Backbone):
        raise invalid(
            f"{build.__name__} returns {type(built).__name__}, expected a geotune.Backbone"
        )
    return built
