"""The output folder, local and through fsspec."""

from __future__ import annotations

import threading
from pathlib import Path
from uuid import uuid4

import pytest

from geotune.mapping.store import Store, open_store
from helpers.errors import raises


@pytest.fixture(params=["local", "memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    roots = {"local": str(tmp_path), "memory": f"memory://{uuid4()}", "file": f"file://{tmp_path}"}
    return open_store(roots[request.param])


def test_files_are_written_replaced_listed_and_removed(store: Store) -> None:
    assert store.sizes("tiles") == {}
    store.write("tiles/a/0_0.tif", b"12")
    store.write("tiles/a/0_0.tif", b"345")
    store.write("plan.json", b"{}")
    assert store.read("tiles/a/0_0.tif") == b"345"
    assert store.sizes("tiles") == {"tiles/a/0_0.tif": 3}
    store.remove("tiles/a/0_0.tif")
    store.remove("tiles/a/0_0.tif")
    assert store.sizes("tiles") == {}
    with pytest.raises(FileNotFoundError):
        store.read("tiles/a/0_0.tif")


def test_a_file_is_created_once(store: Store) -> None:
    assert store.create("plan.json", b"first")
    assert not store.create("plan.json", b"second")
    assert store.read("plan.json") == b"first"


def test_of_many_writers_one_creates_a_local_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    start, created = threading.Barrier(8), []

    def create(number: int) -> None:
        start.wait()
        if store.create("plan.json", b"%d" % number):
            created.append(b"%d" % number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read("plan.json")] == created
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_staged_files_arrive_in_the_store(store: Store) -> None:
    with store.staging("scenes") as folder:
        folder.mkdir(exist_ok=True)
        (folder / "a.tif").write_bytes(b"map")
    assert store.read("scenes/a.tif") == b"map"


def test_an_unknown_store_is_refused() -> None:
    with raises("dependency-missing", key="--out", mentions=["nothing://bucket"]):
        open_store("nothing://bucket")
