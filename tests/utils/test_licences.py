"""Licences as catalogues name them."""

from __future__ import annotations

import pytest

from geotune.utils.licences import spdx, spdx_or_other


@pytest.mark.parametrize(
    ("licence", "identifier"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("Apache 2.0", "Apache-2.0"),
        ("CC-BY-NC-4.0 (torchgeo's documentation)", "CC-BY-NC-4.0"),
        ("mit", "MIT"),
        ("not stated by timm", None),
        ("none", None),
    ],
)
def test_licences_are_recognised(licence: str, identifier: str | None) -> None:
    assert spdx(licence) == identifier
    assert spdx_or_other(licence) == (identifier or "other")
