"""The reference of recipe keys is complete and states types and defaults in words."""

from __future__ import annotations

from typing import get_args

import pytest

from geotune.config.reference import Option, Section, section_kinds, shared_options
from geotune.config.schema import Recipe
from geotune.registry import DECODERS, METHODS, SPLITTERS, TASKS

SECTIONS = get_args(Section)


def test_every_section_of_a_recipe_has_a_reference() -> None:
    assert set(SECTIONS) == {*Recipe.model_fields, "split"}
    registries = {"method": METHODS, "decoder": DECODERS, "task": TASKS, "split": SPLITTERS}
    for section, registry in registries.items():
        own = ["python/FILE.py:CLASS"] if section == "method" else []
        assert [kind.name for kind in section_kinds(section)] == [*registry, *own]  # type: ignore[arg-type]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_type_and_meaning(section: Section) -> None:
    kinds = section_kinds(section)
    for kind in kinds:
        assert kind.description
        for option in kind.options:
            assert option.type not in ("", "any value") and option.description, option
    listed = [
        (owner, o) for owners, options in shared_options(kinds) for owner in owners for o in options
    ]
    assert sorted(listed, key=str) == sorted(
        ((k.name, o) for k in kinds for o in k.options), key=str
    )


@pytest.mark.parametrize(
    ("section", "kind", "key", "type_", "default"),
    [
        ("train", "", "lr", "number > 0", "0.001"),
        ("train", "", "layer_decay", "number > 0 and ≤ 1", "1.0"),
        ("train", "", "schedule", "cosine, plateau or constant", "cosine"),
        ("train", "", "devices", "integer > 0 or auto", "auto"),
        ("train", "", "memory_budget", "size such as 8GB", ""),
        ("train", "", "cache_folder", "path", "cache"),
        ("backbone", "", "name", "text", "required"),
        ("backbone", "", "metadata", "list of time or location", "[]"),
        ("decoder", "unet", "channels", "list of integers > 0", "[256, 128, 64, 32, 16]"),
        ("data", "scenes", "augment", "mapping", ""),
        ("data", "scenes", "augment.flips", "true or false", "true"),
        ("data", "scenes", "augment.scale", "[number > 0, number > 0]", "[1.0, 1.0]"),
        ("data", "chips", "quality.pattern", "text", "required"),
        ("data", "images", "split", "mapping", "required"),
        ("split", "date", "val", "date such as 2024-05-31", "required"),
        ("split", "blocks", "buffer", "length such as 3 px or 2 m", "0 m"),
    ],
)  # fmt: skip
def test_type_and_default_are_in_words(
    section: Section, kind: str, key: str, type_: str, default: str
) -> None:
    (found,) = [k for k in section_kinds(section) if k.name == kind]
    (option,) = [o for o in found.options if o.key == key]
    assert option == Option(key, type_, default, option.description)
