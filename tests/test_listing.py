"""What `geotune list` shows is what there is."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from geotune import listing as rooms
from geotune.backbones.catalog import PROVIDERS
from geotune.decoders.catalog import DECODERS
from geotune.listing import listing
from geotune.methods.catalog import METHODS
from geotune.recipe import Data, Decoder, Method


def kinds(union: Any) -> list[str]:
    return [model.model_fields["kind"].default for model in get_args(get_args(union)[0])]


def test_methods_and_decoders_are_those_of_the_catalogues_and_of_recipes() -> None:
    assert list(rooms.METHODS) == list(METHODS) == kinds(Method)
    assert list(rooms.DECODERS) == list(DECODERS) == kinds(Decoder)
    assert list(rooms.DATASETS) == kinds(Data)


def test_galileos_sizes_are_those_that_can_be_built() -> None:
    from geotune.backbones.rslearn.galileo import SIZES

    assert rooms.GALILEO == SIZES


@pytest.mark.parametrize("what", ["methods", "decoders", "datasets"])
def test_rows_say_what_each_is_and_which_keys_it_takes(what: Any) -> None:
    rows = listing(what)
    assert [row["name"] for row in rows] == list(getattr(rooms, what.upper()))
    assert all(list(row) == ["name", "is", "options"] for row in rows)
    assert all(row["is"] for row in rows)
    options = {row["name"]: row["options"].split(", ") for row in rows}
    if what == "methods":
        assert {"rank", "alpha", "stem"} <= set(options["lora"])
    assert all("kind" not in keys for keys in options.values())


def test_backbones_are_names_that_can_be_asked_for() -> None:
    rows = listing("backbones")
    names = {row["name"] for row in rows}
    assert {"timm/resnet18", "timm/vit_small_patch16_224", "rslearn/galileo_nano"} <= names
    assert {name.partition("/")[0] for name in names} == set(PROVIDERS)
    assert all(list(row) == ["name", "needs"] for row in rows)
