"""Registers geotune's methods when TerraTorch is imported, without a line in its configuration.

TerraTorch has no plugins. PyTorch calls the entry points of `torch.backends` when it is imported,
before TerraTorch is; `install` then waits for TerraTorch's registry and does nothing else. The
variable `TORCH_DEVICE_BACKEND_AUTOLOAD=0` turns this off; `register` does the same by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LAST_MODULE = "terratorch.registry.custom_registry"
"""The last module that TerraTorch's registry imports, when the registries exist."""


def install() -> None:
    """Register the methods as soon as TerraTorch's registry is imported; imports nothing itself."""
    if not any(isinstance(finder, _AfterRegistry) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterRegistry())


class _AfterRegistry(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the last module of the registry as Python does, and register after it has run."""
        if fullname != LAST_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                from geotune.terratorch.method_source import register

                register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
