"""The wheel alone, in an environment without this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_citation_and_changelog_have_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{VERSION}] - {citation['date-released']}" in changelog


@pytest.mark.slow
def test_demo_runs_from_the_wheel(tmp_path: Path) -> None:
    """The environment has the wheel, and this one's dependencies without this checkout."""
    build = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(tmp_path / "dist"),
    ]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    environment = tmp_path / "env"
    venv.create(environment)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": ""}))
    with ZipFile(wheel) as file:
        file.extractall(packages)
    # A plain path: the .pth file of an editable geotune in that folder is not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def run(*arguments: str) -> str:
        python = environment / "bin" / "python"
        keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        keep |= {"PYTHONSAFEPATH": "1", "GEOTUNE_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [python, *arguments], cwd=tmp_path, env=keep, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    location = run("-c", "import geotune; print(geotune.__file__)")
    assert Path(location.strip()).is_relative_to(packages)
    assert run("-m", "geotune", "--version").strip().endswith(VERSION)
    run("-m", "geotune", "demo")
    assert list((tmp_path / "geotune-demo").rglob("report.html"))
