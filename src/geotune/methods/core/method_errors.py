"""Errors of methods that do not fit a backbone or each other's options."""

from __future__ import annotations

from geotune.errors import GeotuneError


def option_error(option: str, value: object, problem: str) -> GeotuneError:
    """The error for an option of a method that does not fit the backbone or another option."""
    return GeotuneError(
        f"method.{option} {value}: {problem}", code="method-option-invalid", key=f"method.{option}"
    )


def unsupported_error(method: str, backbone: str, reason: str) -> GeotuneError:
    """The error for a method that does not support a backbone."""
    return GeotuneError(
        f"{method} on {backbone}: {reason}", code="method-unsupported", key="method.kind"
    )
