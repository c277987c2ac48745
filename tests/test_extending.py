"""The examples of docs/extending.md run as they are printed, from a package outside of geotune."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"


def blocks(heading: str) -> list[str]:
    """The Python examples below a heading of the page."""
    (section,) = re.findall(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an empty `my_package`."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    return tmp_path


def write(folder: Path, heading: str) -> str:
    """Write the files of a heading's examples; returns the code that registers the component."""
    *files, registration = blocks(heading)
    for code in files:
        name = re.match(r"# (my_package/\w+\.py)\n", code)
        assert name is not None, code
        (folder / name[1]).write_text(code, encoding="utf-8")
    return registration


def run(folder: Path, code: str) -> str:
    """Run code in a new process that finds the package; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{ROOT / 'src'}", "PATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


METHOD = """
import torch
from geotune import backbone
from geotune.config.schema import ModelSections
from geotune.info import list_components

sections = ModelSections.model_validate({
    "backbone": {"name": "timm/test_vit"},
    "method": {"kind": "ssf", "start": 0.5, "stem_width": 0},
    "decoder": {"kind": "linear"},
    "task": {"kind": "segment", "classes": ["a", "b"]},
})
method = METHODS["ssf"].load().from_options(sections.method)
encoder = method.attach(backbone("timm/test_vit", bands=3, pretrained=False))
maps = encoder(torch.randn(1, 3, 160, 160)).maps
sum(x.square().sum() for x in maps).backward()
trained = dict(encoder.named_parameters())
assert encoder.trainable_names()
for name in encoder.trainable_names():
    assert ".part." in name and trained[name].grad is not None
assert all((p == 0.5).all() for name, p in trained.items() if name.endswith("part.scale"))
rows = {row["name"]: row for row in list_components("methods")}
assert rows["ssf"]["options"] == "stem_width, frozen_precision, start", rows["ssf"]
assert rows["ssf"]["fits"] == "every backbone"
"""


def test_a_method_is_two_files_and_one_line(package: Path) -> None:
    registration = write(package, "A tuning method")
    assert len(registration.strip().splitlines()[2:]) == 1
    run(package, registration + METHOD)
