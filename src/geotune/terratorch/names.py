"""Names in configurations of TerraTorch, and geotune's: `geotune_METHOD__BACKBONE`, options."""

from __future__ import annotations

from geotune.registry import METHODS

PREFIX = "geotune"
SEPARATOR = "__"

OPTIONS = {"num_frames": "timesteps", "coords_encoding": "metadata", "ckpt_path": "weights"}
"""TerraTorch's names of the backbones' options that have others here."""


def split_method(name: str) -> tuple[str, str] | None:
    """Method and backbone of `METHOD__BACKBONE`; None for other names."""
    method, _, backbone = name.partition(SEPARATOR)
    return (method, backbone) if method in METHODS and backbone else None
