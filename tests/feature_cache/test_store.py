"""The feature store: complete shards only, reused, verified, rebuilt."""

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
from geotune.feature_cache import populate as populate_module
from geotune.feature_cache.capacity import check_free_space, folder_bytes
from geotune.feature_cache.populate import populate
from geotune.feature_cache.store import (
    MANIFEST_FILE,
    FeatureStore,
    folder_lock,
    prepare_folder,
)
from helpers.errors import raises

SAMPLE_BYTES = 2 * 3 * 4 * 4


def value(name: str) -> Tensor:
    """The features of a sample, a function of its key."""
    return torch.full((2, 3, 4), float(int(name)))


class RecordingCompute:
    """Computes features and records the samples of each batch."""

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
) -> RecordingCompute:
    """Populate an opened store."""
    compute = RecordingCompute(names)
    done: Callable[..., None] = lambda *_: None  # noqa: E731
    options = {"on_start": done, "on_progress": done, **options}
    populate(store, names, compute, batch_size=batch_size, **options)
    return compute


def open_store(folder: Path, names: Sequence[str]) -> tuple[FeatureStore, list[str]]:
    store = FeatureStore(folder)
    return store, store.open(names)


def assert_holds(store: FeatureStore, names: Sequence[str]) -> None:
    for name in names:
        assert torch.equal(store.read(name)["0.feature"], value(name))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard holds two batches of two."""
    monkeypatch.setattr(populate_module, "SHARD_BYTES", 4 * SAMPLE_BYTES)


NAMES = [str(i) for i in range(10)]


@settings(deadline=None, max_examples=30)
@given(
    first=st.lists(st.integers(0, 12).map(str), max_size=12),
    second=st.lists(st.integers(0, 12).map(str), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    on_disk=st.booleans(),
)
def test_stored_samples_are_not_computed_again(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[str],
    second: list[str],
    batch_size: int,
    on_disk: bool,
) -> None:
    """For any two lists of samples, with duplicates."""
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


def test_on_start_receives_the_size_before_anything_is_stored(tmp_path: Path) -> None:
    sizes: list[tuple[int, int]] = []

    def on_start(missing: int, needed: int) -> None:
        sizes.append((missing, needed))
        raise GeotuneError("too much", code="out-of-memory")

    with raises("out-of-memory", mentions=["too much"]):
        build(FeatureStore(tmp_path), NAMES, on_start=on_start)
    assert sizes == [(10, 10 * SAMPLE_BYTES)]
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    build(FeatureStore(tmp_path), NAMES[:5], on_progress=lambda *count: counts.append(count))
    assert counts == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("after", range(5))
def test_resumed_build_computes_the_same_batches(tmp_path: Path, after: int) -> None:
    """Interrupted in batch `after`; complete shards are not computed again."""
    (tmp_path / "whole").mkdir()
    uninterrupted = build(FeatureStore(tmp_path / "whole"), NAMES).batches
    (tmp_path / "cut").mkdir()
    compute = RecordingCompute(NAMES)

    def interrupted(indices: list[int]) -> dict[str, Tensor]:
        if len(compute.batches) == after:
            raise KeyboardInterrupt
        return compute(indices)

    done: Callable[..., None] = lambda *_: None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        populate(
            FeatureStore(tmp_path / "cut"),
            NAMES,
            interrupted,
            batch_size=2,
            on_start=done,
            on_progress=done,
        )
    store, notes = open_store(tmp_path / "cut", NAMES)
    assert notes == []
    rest = build(store, NAMES).batches
    assert rest == uninterrupted[after // 2 * 2 :]
    assert_holds(store, NAMES)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """Tensors without a sidecar, and an incomplete file."""
    build(FeatureStore(tmp_path), NAMES)
    (tmp_path / "00001.json").unlink()
    (tmp_path / ".00002.safetensors.123.part").write_bytes(b"half")
    store, notes = open_store(tmp_path, NAMES)
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
def test_damaged_shard_is_reported_and_rebuilt(
    tmp_path: Path, harm: Callable[[bytes], bytes] | None
) -> None:
    build(FeatureStore(tmp_path), NAMES)
    path = tmp_path / "00001.safetensors"
    good = path.read_bytes()
    path.write_bytes(harm(good)) if harm else path.unlink()
    store, notes = open_store(tmp_path, NAMES)
    assert len(notes) == 1
    assert str(path) in notes[0] and "4 samples are computed again" in notes[0]
    assert build(store, NAMES).computed == NAMES[4:8]
    assert_holds(store, NAMES)
    assert open_store(tmp_path, NAMES)[1] == []


def test_damaged_sidecar_is_reported_and_its_samples_rebuilt(tmp_path: Path) -> None:
    build(FeatureStore(tmp_path), NAMES)
    (tmp_path / "00000.json").write_text('{"samples": [')
    store, notes = open_store(tmp_path, NAMES)
    assert len(notes) == 1 and str(tmp_path / "00000.json") in notes[0]
    assert build(store, NAMES).computed == NAMES[:4]
    assert_holds(store, NAMES)


def test_unused_shard_is_not_verified(tmp_path: Path) -> None:
    build(FeatureStore(tmp_path), NAMES)
    (tmp_path / "00000.safetensors").write_bytes(b"")
    assert open_store(tmp_path, NAMES[4:])[1] == []


def test_full_disk_keeps_complete_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geotune.feature_cache import shards

    write = shards.write_atomically
    written: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        if len(written) == 3:  # a shard, its sidecar, another shard; not its sidecar
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(shards, "write_atomically", full)
    with raises("output-not-writable", key="train.cache_folder", file=tmp_path):
        build(FeatureStore(tmp_path), NAMES)
    monkeypatch.setattr(shards, "write_atomically", write)
    assert {path.name for path in tmp_path.iterdir()} == {"00000.safetensors", "00000.json"}
    store, notes = open_store(tmp_path, NAMES)
    assert notes == []
    assert build(store, NAMES).computed == NAMES[4:]


def test_pickled_store_maps_the_files_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    build(store, NAMES)
    assert_holds(store, NAMES)  # mapped here
    sent = pickle.dumps(store)
    assert len(sent) < 4000
    assert_holds(pickle.loads(sent), NAMES)  # noqa: S301 (our own)


def test_reading_leaves_no_open_file_handles(tmp_path: Path) -> None:
    names = [str(i) for i in range(80)]
    store = FeatureStore(tmp_path)
    build(store, names)
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("the system does not list open files")
    before = len(list(handles.iterdir()))
    assert_holds(store, names)
    assert len(list(handles.iterdir())) == before


# ---------------------------------------------------------------- folders
def test_manifest_lists_the_dependencies(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "cache", "vit-abc", {"bands": ["red"]})
    assert folder == tmp_path / "cache" / "vit-abc"
    assert json.loads((folder / MANIFEST_FILE).read_text()) == {"bands": ["red"]}
    before = (folder / MANIFEST_FILE).stat().st_mtime_ns
    assert prepare_folder(tmp_path / "cache", "vit-abc", {"bands": ["red"]}) == folder
    assert (folder / MANIFEST_FILE).stat().st_mtime_ns == before


def test_empty_folder_can_become_a_cache(tmp_path: Path) -> None:
    prepare_folder(tmp_path, "a", {})
    prepare_folder(tmp_path, "b", {})


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_folder_with_other_content_is_rejected_and_unchanged(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "thesis"
    if kind == "file":
        root.write_text("chapter 1")
    else:
        root.mkdir()
        (root / "chapter.txt").write_text("chapter 1")
    with raises("folder-not-owned", key="train.cache_folder", file=root):
        prepare_folder(root, "a", {})
    assert kind == "file" or [path.name for path in root.iterdir()] == ["chapter.txt"]


def test_unwritable_folder_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with raises("output-not-writable", key="train.cache_folder", mentions=["Read-only"]):
        prepare_folder(tmp_path / "cache", "a", {})


def test_limit_includes_existing_features(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(bytes(1000))
    assert folder_bytes(tmp_path) == 1000
    check_free_space(tmp_path, 1500, 5, 500)
    mentions = ["5 windows", "0.000501 MB", "0.001 MB"]
    with raises("cache-too-large", key="train.cache_limit", file=tmp_path, mentions=mentions):
        check_free_space(tmp_path, 1500, 5, 501)
    check_free_space(None, 501, 5, 501)
    with raises("cache-too-large", key="train.cache_limit"):
        check_free_space(None, 500, 5, 501)


@pytest.mark.parametrize("in_memory", [True, False])
def test_features_larger_than_the_free_space_are_rejected(tmp_path: Path, in_memory: bool) -> None:
    with raises("cache-too-large", key="train.cache", mentions=["1e+09 GB"]):
        check_free_space(None if in_memory else tmp_path, None, 5, 10**18)


def test_lock_excludes_other_processes(tmp_path: Path) -> None:
    import fcntl

    with (
        folder_lock(tmp_path),
        (tmp_path / ".lock").open("w") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with folder_lock(None):
        pass
