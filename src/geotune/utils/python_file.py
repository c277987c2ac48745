"""Classes and functions in Python files of the user, named `python/FILE.py:NAME`.

Naming such a file runs its code. Recipes may do so; for adapters the user has to confirm the file
(see `factory/build_model.py`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geotune.errors import GeotuneError

PREFIX = "python/"


def load_object(
    target: str, *, key: str, code: str, unknown: str
) -> tuple[Any, Callable[[str], GeotuneError]]:
    """Run the file of `python/FILE.py:NAME` and return what has the name there.

    Also returns a function that makes an error of this file from a message.

    Args:
        target: names the file and what is in it.
        key: of the recipe, for errors.
        code: of errors in the file.
        unknown: code of the error for a `target` of another form.

    Raises `GeotuneError` if `target` has another form, the file or the name is missing, or the
    file's code fails.
    """
    file, colon, name = target.removeprefix(PREFIX).rpartition(":")
    path = Path(file)
    if not colon or not name.isidentifier() or path.suffix != ".py":
        raise GeotuneError(
            f"{key} {target}: expected python/FILE.py:NAME, such as python/models/mine.py:build",
            code=unknown,
            key=key,
        )
    if not path.is_file():
        raise GeotuneError(
            f"{key} {target}: file not found: {path.resolve()}; check the path",
            code="file-missing",
            key=key,
            file=path,
        )

    def invalid(message: str) -> GeotuneError:
        return GeotuneError(f"{path}: {message}", code=code, key=key, file=path)

    module_name = f"geotune_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that its classes can be pickled
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise invalid(f"fails with {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise invalid(f"has no function or class {name}")
    return found, invalid
