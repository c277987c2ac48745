"""The tuning methods that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable

from geotune.methods.base import Method
from geotune.methods.est import Est
from geotune.methods.frozen import Frozen
from geotune.methods.full import Full
from geotune.methods.lora import Lora

METHODS: dict[str, Callable[..., Method]] = {
    "full": Full,
    "frozen": Frozen,
    "lora": Lora,
    "est": Est,
}
