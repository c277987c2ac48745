"""What in a backbone is its own, and what a method put in."""

from __future__ import annotations

from torch import nn


def inserted(module: nn.Module) -> nn.Module:
    """Mark a module as put in by a method: it follows the encoder's mode, not the backbone's."""
    for part in module.modules():
        part.geotune_inserted = True  # type: ignore[assignment]
    return module


def is_inserted(module: nn.Module) -> bool:
    """Whether a module was put into the backbone by a method, and so follows its mode."""
    return bool(getattr(module, "geotune_inserted", False))


def freeze(module: nn.Module) -> None:
    """No parameter of the module trains."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
