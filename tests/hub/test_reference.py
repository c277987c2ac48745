"""Names of repositories on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from geotune.hub.reference import HubReference, parse_reference
from helpers.errors import raises


def test_a_name_has_a_repository_and_perhaps_a_revision() -> None:
    assert parse_reference("hub:my-org/ships_v1.2") == HubReference("my-org/ships_v1.2")
    assert parse_reference(Path("hub:org/ships@release/2")) == HubReference(
        "org/ships", "release/2"
    )
    assert str(HubReference("org/ships", "v1")) == "hub:org/ships@v1"
    assert parse_reference("runs/hub:org") is None


@pytest.mark.parametrize(
    "name",
    [
        *("hub:", "hub:ships", "hub:org/", "hub:/ships", "hub:org/a/b", "hub:org/ships@"),
        *("hub:../ships", "hub:org/..", "hub:org/a..b", "hub:org/a--b", "hub:org/a b"),
        *("hub:org/ships@../main", "hub:org/ships@-x", "hub:org/ships.git", "hub:o/s@a b"),
    ],
)
def test_other_names_are_errors(name: str) -> None:
    with raises("hub-name", mentions=[name]):
        parse_reference(name)
