"""Create the method of a recipe: a registered one, or a class in a Python file of the user."""

from __future__ import annotations

from geotune.config.method_options import MethodOptions, PythonMethodOptions
from geotune.methods.core.base import Method
from geotune.registry import METHODS
from geotune.utils.python_file import load_object


def create_method(options: MethodOptions) -> Method:
    """The method with valid options.

    Raises `GeotuneError` if the file or class of a method of the user is missing, the file's code
    fails, the class is no `Method`, or it does not take the options.
    """
    if not isinstance(options, PythonMethodOptions):
        method: Method = METHODS[options.kind].load().from_options(options)
        return method
    found, invalid = load_object(
        options.kind, key="method.kind", code="method-code", unknown="recipe-invalid"
    )
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise invalid(f"{found.__name__} is no subclass of geotune.Method")
    shared = {name: getattr(options, name) for name in MethodOptions.model_fields if name != "kind"}
    own: Method = found(**shared, **options.options)
    return own
