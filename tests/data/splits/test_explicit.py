"""Explicit splits by list."""

from pathlib import Path

from geotune.config.split_options import GroupSplitOptions, ListSplitOptions
from geotune.data.splits.explicit import split_by_list
from geotune.data.splits.groups import split_by_group
from helpers.errors import raises
from helpers.lazy_scenes import names, scenes

HARBOURS = ["algiers", "busan", "durban", "klang"]


def test_lists_and_list_files_name_the_scenes_of_a_split(tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("# harbours\nalgiers.tif\n\nklang\n")
    splits = split_by_list(scenes(HARBOURS), ListSplitOptions(train=listed, val=["busan"]))
    assert names(splits) == {"train": ["algiers", "klang"], "val": ["busan"], "test": []}
    missing = tmp_path / "missing.txt"
    with raises("file-missing", key="data.split", file=missing):
        split_by_list(scenes(HARBOURS), ListSplitOptions(train=missing, val=["busan"]))


def test_unknown_names_are_rejected_with_suggestions() -> None:
    with raises(
        "split-name-unknown", key="data.split.val", mentions=["'bussan'", "did you mean busan"]
    ):
        split_by_list(scenes(HARBOURS), ListSplitOptions(train=["algiers"], val=["bussan"]))
    with raises("split-name-unknown", key="data.split.test", mentions=["'x'", *HARBOURS]):
        split_by_group(scenes(HARBOURS), GroupSplitOptions(val=["busan"], test=["x"]))


def test_scene_in_two_splits_is_rejected() -> None:
    with raises("split-conflict", mentions=["scene busan", "train", "val"]):
        split_by_list(
            scenes(HARBOURS), ListSplitOptions(train=["algiers", "busan"], val=["busan.tif"])
        )
    with raises("split-conflict", mentions=["scene busan", "val", "test"]):
        split_by_group(scenes(HARBOURS), GroupSplitOptions(val=["busan"], test=["busan"]))


def test_unreadable_scenes_may_be_listed() -> None:
    listed = {"train": ["a", "lost.tif"], "val": ["b"]}
    with raises("split-name-unknown", mentions=["lost"]):
        split_by_list(scenes(["a", "b"]), ListSplitOptions(**listed))
    splits = split_by_list(scenes(["a", "b"]), ListSplitOptions(**listed), failed=["lost"])
    assert names(splits) == {"train": ["a"], "val": ["b"], "test": []}
