"""Licences as catalogues name them."""

from __future__ import annotations

import re

SPDX = (
    *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0"),
    *("CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0", "GPL-3.0", "AGPL-3.0"),
)
"""Identifiers of SPDX that models are published under."""


def spdx(licence: str) -> str | None:
    """The SPDX identifier of a licence, which may be written in other ways; None if unknown."""
    text = licence.partition("(")[0].strip().lower().removesuffix("-only")
    text = re.sub(r"[^a-z0-9.]+", "", text)
    known = {re.sub(r"[^a-z0-9.]+", "", name.lower()): name for name in SPDX}
    return known.get(text)


def spdx_or_other(licence: str) -> str:
    """The SPDX identifier, or `other`, as STAC has it."""
    return spdx(licence) or "other"
