"""Files are written atomically."""

from __future__ import annotations

import copy
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geotune.errors import OutputError
from geotune.utils.atomic import (
    check_writable,
    make_folder,
    replacing,
    staging_folder,
    write_atomically,
)
from helpers.errors import raises


def test_file_is_replaced_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"old and longer")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


def test_failure_keeps_the_old_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        assert path.read_bytes() == b"old", "the old file must stay until the new one is complete"
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_error_of_the_system_names_the_file_and_not_its_incomplete_copy(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with (
        raises("output-not-writable", file=path, mentions=["No space left", "free disk"]) as caught,
        replacing(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(caught.value, OSError) and "No space" in str(caught.value.strerror)
    again = copy.copy(caught.value)  # as between processes
    assert type(again) is OutputError and str(again) == str(caught.value) and again.file == path
    with pytest.raises(FileNotFoundError, match="other"), replacing(path):
        (tmp_path / "other").read_bytes()
    (tmp_path / "file").touch()
    with raises("output-not-writable", file=tmp_path / "file" / "a"):
        write_atomically(tmp_path / "file" / "a", b"")


def test_folders_left_by_a_kill_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    killed = """
import os, pathlib, sys
from geotune.utils.atomic import staging_folder
with staging_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "map.tif").write_bytes(bytes(1000))
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    [abandoned] = tmp_path.iterdir()
    of_another_machine = tmp_path / ".node-7-abc.partial"
    of_another_machine.mkdir()
    for folder in (abandoned, of_another_machine):
        os.utime(folder, (0, 0))
    with staging_folder(tmp_path) as in_use:
        assert not abandoned.exists()
        os.utime(in_use, (0, 0))
        with staging_folder(tmp_path) as second:
            assert {*tmp_path.iterdir()} == {in_use, second, of_another_machine}
    assert [*tmp_path.iterdir()] == [of_another_machine]


def test_paths_that_cannot_be_written_are_known_before(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "file")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    for special in ("/dev/null", tmp_path / "pipe"):  # a rename would replace it
        if special != "/dev/null":
            os.mkfifo(special)
        with raises("output-not-writable", file=special, mentions=["device or pipe"]):
            check_writable(Path(special))
    check_writable(tmp_path / "file")
    for path, mention in ((tmp_path, "is a folder"), (tmp_path / "file" / "a" / "b", "is a file")):
        with raises("output-not-writable", file=path, mentions=[mention]):
            check_writable(path)


def test_folder_that_cannot_be_created(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "a"):
        with raises("output-not-writable", file=folder, mentions=["choose another"]):
            make_folder(folder)
