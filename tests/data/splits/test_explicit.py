"""Lists and columns name the parts."""

from pathlib import Path

import pytest

from geotune.data.splits.explicit import split_by_list
from geotune.data.splits.groups import split_by_group
from geotune.errors import GeotuneError
from helpers.lazy_scenes import names, scenes

HARBOURS = ["algiers", "busan", "durban", "klang"]


def test_lists_name_the_parts(tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("# harbours\nalgiers.tif\n\nklang\n")
    parts = split_by_list(scenes(HARBOURS), train=listed, val=["busan"])
    assert names(parts) == {"train": ["algiers", "klang"], "val": ["busan"], "test": []}
    with pytest.raises(GeotuneError, match=r"gone\.txt: cannot be read as a list of names"):
        split_by_list(scenes(HARBOURS), train=tmp_path / "gone.txt", val=["busan"])


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(
        GeotuneError, match=r"data\.split\.val: there is no scene 'bussan'; did you mean busan"
    ):
        split_by_list(scenes(HARBOURS), train=["algiers"], val=["bussan"])
    with pytest.raises(
        GeotuneError, match=r"data\.split\.test: there is no scene 'x'; there are algiers"
    ):
        split_by_group(scenes(HARBOURS), val=["busan"], test=["x"])


def test_a_scene_in_two_parts_is_refused() -> None:
    with pytest.raises(GeotuneError, match="scene busan is in train and in val"):
        split_by_list(scenes(HARBOURS), train=["algiers", "busan"], val=["busan.tif"])
    with pytest.raises(GeotuneError, match="scene busan is in val and in test"):
        split_by_group(scenes(HARBOURS), val=["busan"], test=["busan"])


def test_scenes_that_could_not_be_read_may_be_named() -> None:
    listed = {"train": ["a", "gone.tif"], "val": ["b"]}
    with pytest.raises(GeotuneError, match="there is no scene 'gone"):
        split_by_list(scenes(["a", "b"]), **listed)
    parts = split_by_list(scenes(["a", "b"]), **listed, gone=["gone"])
    assert names(parts) == {"train": ["a"], "val": ["b"], "test": []}
