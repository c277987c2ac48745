from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.data.scene import Scene
from geotune.data.splits import (
    Parts,
    some_to_train,
    split_at_random,
    split_by_group,
    split_by_list,
)
from geotune.types import GeotuneError


def _scenes(names: Sequence[str]) -> list[Scene]:
    return [Scene(name, cast(Any, None), cast(Any, None), group=name) for name in names]


def _names(parts: Parts) -> dict[str, list[str]]:
    return {part: [scene.name for scene in scenes] for part, scenes in parts.items()}


HARBOURS = ["algiers", "busan", "durban", "klang"]


def test_lists_name_the_parts(tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("# harbours\nalgiers.tif\n\nklang\n")
    parts = split_by_list(_scenes(HARBOURS), train=listed, val=["busan"])
    assert _names(parts) == {"train": ["algiers", "klang"], "val": ["busan"], "test": []}
    with pytest.raises(GeotuneError, match=r"gone\.txt: cannot be read as a list of names"):
        split_by_list(_scenes(HARBOURS), train=tmp_path / "gone.txt", val=["busan"])


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(
        GeotuneError, match=r"data\.split\.val: there is no scene 'bussan'; did you mean busan"
    ):
        split_by_list(_scenes(HARBOURS), train=["algiers"], val=["bussan"])
    with pytest.raises(
        GeotuneError, match=r"data\.split\.test: there is no scene 'x'; there are algiers"
    ):
        split_by_group(_scenes(HARBOURS), val=["busan"], test=["x"])


def test_a_scene_in_two_parts_is_refused() -> None:
    with pytest.raises(GeotuneError, match="scene busan is in train and in val"):
        split_by_list(_scenes(HARBOURS), train=["algiers", "busan"], val=["busan.tif"])
    with pytest.raises(GeotuneError, match="scene busan is in val and in test"):
        split_by_group(_scenes(HARBOURS), val=["busan"], test=["busan"])


def test_empty_parts_are_refused() -> None:
    with pytest.raises(GeotuneError, match="no scene is left for val"):
        split_by_list(_scenes(HARBOURS), train=["algiers"], val=[])
    with pytest.raises(GeotuneError, match="no scene is left for train"):
        split_by_group(_scenes(HARBOURS), val=HARBOURS)
    with pytest.raises(GeotuneError, match="no scene is left for val"):
        split_at_random(_scenes(HARBOURS), val=0)
    with pytest.raises(GeotuneError, match="no scene is left for train"):
        split_at_random(_scenes(HARBOURS[:2]))


def test_groups_are_held_out_whole() -> None:
    scenes = _scenes(["rome_1", "rome_2", "oslo_1", "oslo_2", "lima_1"])
    parts = split_by_group(scenes, by=r"^([a-z]+)_", val=["oslo"], test=["lima"])
    assert _names(parts) == {
        "train": ["rome_1", "rome_2"],
        "val": ["oslo_1", "oslo_2"],
        "test": ["lima_1"],
    }
    assert {scene.group for scene in parts["val"]} == {"oslo"}
    for by, message in (
        ("(", "is no regular expression"),
        ("rome", "has no group"),
        ("(rome)", "does not match the scene oslo_1"),
    ):
        with pytest.raises(GeotuneError, match=message):
            split_by_group(scenes, by=by, val=["rome"])


@given(st.integers(3, 60), st.floats(0.05, 0.3), st.floats(0, 0.3), st.integers(0, 9))
def test_random_parts_share_no_scene(count: int, val: float, test: float, seed: int) -> None:
    names = [f"s{i}" for i in range(count)]
    parts = _names(split_at_random(_scenes(names), val=val, test=test, seed=seed))
    assert sorted(name for part in parts.values() for name in part) == sorted(names)
    assert abs(len(parts["val"]) - val * count) <= 1
    assert bool(parts["test"]) == (test > 0)
    shuffled = split_at_random(_scenes(names[::-1]), val=val, test=test, seed=seed)
    assert {k: sorted(v) for k, v in _names(shuffled).items()} == {
        k: sorted(v) for k, v in parts.items()
    }


@given(st.integers(1, 40), st.floats(0.02, 1), st.floats(0.02, 1), st.integers(0, 5))
def test_a_smaller_share_to_train_is_in_every_larger_one(
    count: int, one: float, other: float, seed: int
) -> None:
    small, large = sorted((one, other))
    parts: Parts = {"train": _scenes([f"s{i:02}" for i in range(count)]), "val": [], "test": []}
    if small * count < 0.5:
        with pytest.raises(GeotuneError, match=r"data\.fraction: .* less than half of one"):
            some_to_train(parts, small, seed=seed)
        return
    few, many = (_names(some_to_train(parts, f, seed=seed))["train"] for f in (small, large))
    assert set(few) <= set(many) and few == sorted(few)
    assert len(few) == pytest.approx(small * count, abs=0.5 + 1e-9)
    assert some_to_train(parts, 1.0, seed=seed) == parts
