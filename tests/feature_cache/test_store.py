"""Shards on the disk: whole or not there, found again, checked, rebuilt."""

from __future__ import annotations

import errno
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotune.errors import GeotuneError
from geotune.feature_cache import populate as filling
from geotune.feature_cache.capacity import check_free_space, folder_bytes
from geotune.feature_cache.populate import populate
from geotune.feature_cache.store import (
    MANIFEST_FILE,
    FeatureStore,
    exclusive_folder,
    prepare_folder,
)

EACH = 2 * 3 * 4 * 4  # bytes of a sample


def value(name: str) -> Tensor:
    """The features of a sample, a function of its name."""
    return torch.full((2, 3, 4), float(int(name)))


class Computing:
    """Computes features and remembers of which samples, batch by batch."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.batches: list[list[str]] = []

    def __call__(self, indices: list[int]) -> dict[str, Tensor]:
        self.batches.append([self.names[i] for i in indices])
        return {"0.feature": torch.stack([value(self.names[i]) for i in indices])}

    @property
    def computed(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


def build(
    store: FeatureStore, names: Sequence[str], batch_size: int = 2, **options: Any
) -> Computing:
    """Fill a store that is open."""
    compute = Computing(names)
    done: Callable[..., None] = lambda *_: None  # noqa: E731
    options = {"begin": done, "progress": done, **options}
    populate(store, names, compute, batch_size=batch_size, **options)
    return compute


def opened(folder: Path, names: Sequence[str]) -> tuple[FeatureStore, list[str]]:
    store = FeatureStore(folder)
    return store, store.open(names)


def assert_holds(store: FeatureStore, names: Sequence[str]) -> None:
    for name in names:
        assert torch.equal(store.read(name)["0.feature"], value(name))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is two batches of two."""
    monkeypatch.setattr(filling, "SHARD_BYTES", 4 * EACH)


NAMES = [str(i) for i in range(10)]


@settings(deadline=None, max_examples=30)
@given(
    first=st.lists(st.integers(0, 12).map(str), max_size=12),
    second=st.lists(st.integers(0, 12).map(str), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    on_disk=st.booleans(),
)
def test_what_is_there_is_not_computed_again(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[str],
    second: list[str],
    batch_size: int,
    on_disk: bool,
) -> None:
    """For any two lists of samples, some of them twice."""
    folder = tmp_path_factory.mktemp("set") if on_disk else None
    store = FeatureStore(folder)
    assert store.open(first) == []
    assert sorted(build(store, first, batch_size).computed) == sorted(set(first))
    if on_disk:
        store = FeatureStore(folder)
        assert store.open(second) == []
    again = build(store, second, batch_size)
    assert sorted(again.computed) == sorted(set(second) - set(first))
    assert_holds(store, second)
    assert_holds(store, first)


def test_the_size_is_told_before_anything_is_kept(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def begin(missing: int, needed: int) -> None:
        told.append((missing, needed))
        raise GeotuneError("too much")

    with pytest.raises(GeotuneError, match="too much"):
        build(FeatureStore(tmp_path), NAMES, begin=begin)
    assert told == [(10, 10 * EACH)]
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build(FeatureStore(tmp_path), NAMES[:5], progress=lambda *counts: told.append(counts))
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("after", range(5))
def test_an_interrupted_build_goes_on_with_the_same_batches(tmp_path: Path, after: int) -> None:
    """It is cut off in batch `after`; shards that were finished are not computed again."""
    (tmp_path / "whole").mkdir()
    unbroken = build(FeatureStore(tmp_path / "whole"), NAMES).batches
    (tmp_path / "cut").mkdir()
    compute = Computing(NAMES)

    def dies(indices: list[int]) -> dict[str, Tensor]:
        if len(compute.batches) == after:
            raise KeyboardInterrupt
        return compute(indices)

    done: Callable[..., None] = lambda *_: None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        populate(
            FeatureStore(tmp_path / "cut"), NAMES, dies, batch_size=2, on_start=done, progress=done
        )
    store, notes = opened(tmp_path / "cut", NAMES)
    assert notes == []
    rest = build(store, NAMES).batches
    assert rest == unbroken[after // 2 * 2 :]
    assert_holds(store, NAMES)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    """Tensors without a card, and a file that was never finished."""
    build(FeatureStore(tmp_path), NAMES)
    (tmp_path / "00001.json").unlink()
    (tmp_path / ".00002.safetensors.123.part").write_bytes(b"half")
    store, notes = opened(tmp_path, NAMES)
    assert notes == []
    assert build(store, NAMES).computed == NAMES[4:8]
    assert_holds(store, NAMES)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], id="one bit"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(None, id="gone"),
    ],
)
def test_a_damaged_shard_is_named_and_rebuilt(
    tmp_path: Path, harm: Callable[[bytes], bytes] | None
) -> None:
    build(FeatureStore(tmp_path), NAMES)
    path = tmp_path / "00001.safetensors"
    good = path.read_bytes()
    path.write_bytes(harm(good)) if harm else path.unlink()
    store, notes = opened(tmp_path, NAMES)
    assert len(notes) == 1
    assert str(path) in notes[0] and "4 samples are computed again" in notes[0]
    assert build(store, NAMES).computed == NAMES[4:8]
    assert_holds(store, NAMES)
    assert opened(tmp_path, NAMES)[1] == []


def test_a_damaged_card_is_named_and_its_samples_rebuilt(tmp_path: Path) -> None:
    build(FeatureStore(tmp_path), NAMES)
    (tmp_path / "00000.json").write_text('{"samples": [')
    store, notes = opened(tmp_path, NAMES)
    assert len(notes) == 1 and str(tmp_path / "00000.json") in notes[0]
    assert build(store, NAMES).computed == NAMES[:4]
    assert_holds(store, NAMES)


def test_a_shard_that_nobody_wants_is_not_read(tmp_path: Path) -> None:
    build(FeatureStore(tmp_path), NAMES)
    (tmp_path / "00000.safetensors").write_bytes(b"")
    assert opened(tmp_path, NAMES[4:])[1] == []


def test_a_full_disk_leaves_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geotune.feature_cache import shards

    write = shards.write_atomically
    written: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        if len(written) == 3:  # a shard, its card, another shard; no room for that one's card
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(shards, "write_atomically", full)
    with pytest.raises(GeotuneError, match=rf"{tmp_path}: .*No space left.*stays valid"):
        build(FeatureStore(tmp_path), NAMES)
    monkeypatch.setattr(shards, "write_atomically", write)
    assert {path.name for path in tmp_path.iterdir()} == {"00000.safetensors", "00000.json"}
    store, notes = opened(tmp_path, NAMES)
    assert notes == []
    assert build(store, NAMES).computed == NAMES[4:]


def test_another_process_maps_the_files_anew(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    build(store, NAMES)
    assert_holds(store, NAMES)  # mapped here
    sent = pickle.dumps(store)
    assert len(sent) < 4000
    assert_holds(pickle.loads(sent), NAMES)  # noqa: S301 (our own)


def test_reading_takes_no_file_handles(tmp_path: Path) -> None:
    names = [str(i) for i in range(80)]
    store = FeatureStore(tmp_path)
    build(store, names)
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("the system does not say which files are open")
    before = len(list(handles.iterdir()))
    assert_holds(store, names)
    assert len(list(handles.iterdir())) == before


# ---------------------------------------------------------------- the folder
def test_a_folder_says_what_its_features_depend_on(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "cache", "vit-abc", {"bands": ["red"]})
    assert folder == tmp_path / "cache" / "vit-abc"
    assert json.loads((folder / MANIFEST_FILE).read_text()) == {"bands": ["red"]}
    before = (folder / MANIFEST_FILE).stat().st_mtime_ns
    assert prepare_folder(tmp_path / "cache", "vit-abc", {"bands": ["red"]}) == folder
    assert (folder / MANIFEST_FILE).stat().st_mtime_ns == before


def test_an_empty_folder_may_become_a_cache(tmp_path: Path) -> None:
    prepare_folder(tmp_path, "a", {})
    prepare_folder(tmp_path, "b", {})


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "thesis"
    if kind == "file":
        root.write_text("chapter 1")
    else:
        root.mkdir()
        (root / "chapter.txt").write_text("chapter 1")
    with pytest.raises(GeotuneError, match=rf"{root}: .*no cache of geotune.*train\.cache_folder"):
        prepare_folder(root, "a", {})
    assert kind == "file" or [path.name for path in root.iterdir()] == ["chapter.txt"]


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(GeotuneError, match=r"Read-only file system.*train\.cache_folder"):
        prepare_folder(tmp_path / "cache", "a", {})


def test_a_limit_counts_what_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(bytes(1000))
    assert folder_bytes(tmp_path) == 1000
    check_free_space(tmp_path, 1500, 5, 500)
    with pytest.raises(
        GeotuneError, match=r"train\.cache_limit .*5 windows take 0\.000501 MB, and"
    ):
        check_free_space(tmp_path, 1500, 5, 501)
    check_free_space(None, 501, 5, 501)
    with pytest.raises(GeotuneError, match=r"train\.cache_limit"):
        check_free_space(None, 500, 5, 501)


@pytest.mark.parametrize("in_memory", [True, False])
def test_more_than_there_is_room_for_is_refused(tmp_path: Path, in_memory: bool) -> None:
    with pytest.raises(GeotuneError, match=r"1e\+09 GB.* free; make room"):
        check_free_space(None if in_memory else tmp_path, None, 5, 10**18)


def test_two_processes_do_not_build_at_once(tmp_path: Path) -> None:
    import fcntl

    with (
        exclusive_folder(tmp_path),
        (tmp_path / ".lock").open("w") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with exclusive_folder(None):
        pass
