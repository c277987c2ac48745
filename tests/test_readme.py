"""Run the README's commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_RUN = "<!-- not run by the tests -->"
BLOCK = re.compile(rf"^({NOT_RUN}\n)?```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[list[list[str]]]:
    """The commands of each block to run, as lists of arguments."""
    blocks = []
    for not_run, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if not not_run:
            lines = text.replace("\\\n", " ").splitlines()
            commands = [shlex.split(line, comments=True) for line in lines]
            blocks.append([command for command in commands if command])
    return blocks


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes and data that the README's commands refer to."""
    base = tmp_path_factory.mktemp("readme")
    project = base / "project"
    project.mkdir()
    (project / "recipes").symlink_to(ROOT / "recipes")
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (base / "shared").symlink_to(shared)
    return project


def test_readme_has_every_command_and_only_geotune_commands() -> None:
    commands = [command for block in blocks() for command in block]
    assert {command[1] for command in commands} >= {"demo", "fit", "test", "predict", "list"}
    others = [command for command in commands if command[0] != "geotune"]
    assert not others, f"only geotune can be run; put {NOT_RUN!r} above the block"


@pytest.mark.slow
@pytest.mark.parametrize("commands", blocks(), ids=lambda block: " ".join(block[0][:2]))
def test_readme_commands_succeed(project: Path, commands: list[list[str]]) -> None:
    """Blocks are independent; the commands of a block are run in order."""
    if _needs_data(commands) and not (project.parent / "shared" / "data").is_dir():
        pytest.skip("needs the real data in ../shared/data")
    for command in commands:
        done = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:]],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
        assert done.stdout.strip(), shlex.join(command)


def _needs_data(commands: list[list[str]]) -> bool:
    """Whether a command or its recipe uses the shared data."""
    words = [word for command in commands for word in command]
    recipes = [ROOT / word for word in words if word.endswith((".yaml", ".yml"))]
    texts = [path.read_text(encoding="utf-8") for path in recipes if path.is_file()]
    return any("../shared" in text for text in [*words, *texts])
