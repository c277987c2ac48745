"""What a section hands to the constructor that it feeds."""

from __future__ import annotations

from typing import Any

from geotune.config import OptionsModel


def values_of(section: OptionsModel) -> dict[str, Any]:
    """A section's values for the constructor it feeds: all but `kind`."""
    return {name: value for name, value in section if name != "kind"}
