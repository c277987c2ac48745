"""Run the README's commands on a folder of small scenes of the name in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_RUN = "<!-- not run by the tests -->"
BLOCK = re.compile(rf"^({NOT_RUN}\n)?```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The commands of the blocks to run, in order."""
    lines = [
        line for not_run, text in BLOCK.findall(README) if not not_run for line in text.splitlines()
    ]
    return [shlex.split(line, comments=True) for line in lines]


def test_readme_commands_succeed(
    geotune: Callable[..., tuple[int, str, str]],
    tiny_scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    copytree(tiny_scenes / "scenes", tmp_path / "harbours")
    copytree(tiny_scenes / "labels", tmp_path / "harbours" / "masks")
    assert [command[1] for command in commands()] == ["init", "fit", "predict"]
    for program, name, *arguments in commands():
        assert program == "geotune", f"only geotune can be run; put {NOT_RUN!r} above the block"
        if name == "fit":  # as in the README, but short
            arguments += ["train.epochs=1", "data.samples=8", "decoder.channels=[8, 8, 8, 8]"]
        code, out, err = geotune(name, *arguments)
        assert code == 0 and out.strip(), f"{name} {shlex.join(arguments)}\n{err}"
    assert (tmp_path / "maps" / "d_classes.tif").is_file()


def test_readme_fits_on_one_screen() -> None:
    assert len(README.splitlines()) <= 70, "move details to docs/"
