"""Decoders and tasks by their `kind`, built from options as a recipe builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geotune.config.decoder_options import ProbeOptions
from geotune.registry import DECODERS, TASKS
from geotune.types import Tap

DETECTORS = tuple(k for k, one in DECODERS.items() if one.load_options().level == "object")
PROBES = tuple(k for k, one in DECODERS.items() if issubclass(one.load_options(), ProbeOptions))
"""Decoders that are fitted, not trained; tests/training/test_fit_probe.py tests them."""


def make_task(kind: str, **options: Any) -> Any:
    """A task with these options."""
    component = TASKS[kind]
    return component.load()(component.load_options()(**options))


def make_decoder(kind: str, taps: Sequence[Tap], num_outputs: int, **options: Any) -> Any:
    """A decoder or detector with these options."""
    component = DECODERS[kind]
    return component.load()(taps, num_outputs, component.load_options()(**options))


def known_options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of some options that the decoder has."""
    known = DECODERS[kind].load_options().model_fields
    return {key: value for key, value in options.items() if key in known}
