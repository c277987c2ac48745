"""The examples of docs/how-to/extending.md run as printed, from a package outside of geotune."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "extending.md"


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
sum(x.square().sum() for x in encoder(torch.randn(1, 3, 160, 160)).maps).backward()
trained = dict(encoder.named_parameters())
assert encoder.trainable_names()
for name in encoder.trainable_names():
    assert ".part." in name and trained[name].grad is not None
assert all((p == 0.5).all() for name, p in trained.items() if name.endswith("part.scale"))
rows = {row["name"]: row for row in list_components("methods")}
assert rows["ssf"]["options"] == "stem_width, frozen_precision, start", rows["ssf"]
assert rows["ssf"]["backbones"] == "backbones with accessible blocks"
"""
DECODER = """
import torch
from geotune.config.schema import ModelSections
from geotune.types import FeatureMaps, Tap

sections = ModelSections.model_validate({
    "backbone": {"name": "timm/test_vit"},
    "method": {"kind": "est"},
    "decoder": {"kind": "pointwise", "hidden": 8},
    "task": {"kind": "segment", "classes": ["a", "b"]},
})
taps = (Tap("a", 4, 4.0), Tap("b", 6, 8.0))
decoder = DECODERS["pointwise"].load()(taps, 2, sections.decoder)
maps = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
logits = decoder(FeatureMaps(maps, (32, 32)))
assert logits.shape == (1, 2, 8, 8)
logits.sum().backward()
assert all(p.grad is not None for p in decoder.parameters())
"""
FORMAT = """
from pathlib import Path
import numpy as np
import rasterio
from geotune.config import parse_recipe
from geotune.factory.build_data import build_data

for i, name in enumerate("abc"):
    with rasterio.open(f"{name}.tif", "w", driver="GTiff", width=64, height=64, count=1,
                       dtype="uint8") as file:
        file.write(np.random.default_rng(i).integers(1, 255, (1, 64, 64), dtype="uint8"))
    Path(f"{name}.corners").write_text("ship 10 20 30 40\\nship 1 2 12 15\\n")
recipe = parse_recipe({
    "backbone": {"name": "timm/test_vit", "pretrained": False},
    "method": {"kind": "frozen"},
    "decoder": {"kind": "fcos"},
    "task": {"kind": "detect", "classes": ["ship"]},
    "data": {"kind": "scenes", "scenes": "*.tif", "labels": "{stem}.corners", "window": 64,
             "format": FORMAT, "split": {"kind": "group", "val": ["b"], "test": ["c"]}},
})
target = build_data(recipe).val[0].target
print(target.boxes.tolist() if hasattr(target, "boxes") else target)
"""
TASK = """
import json
from pathlib import Path
import numpy as np
import rasterio
import yaml
import geotune

for i, name in enumerate("abc"):
    rng = np.random.default_rng(i)
    for folder in ("images", "labels"):
        Path(folder).mkdir(exist_ok=True)
        with rasterio.open(f"{folder}/{name}.tif", "w", driver="GTiff", width=64, height=64,
                           count=1, dtype="float32") as file:
            file.write(rng.uniform(1, 100, (1, 64, 64)).astype("float32"))
Path("recipe.yaml").write_text(yaml.safe_dump({
    "backbone": {"name": "timm/test_vit", "pretrained": False},
    "method": {"kind": "frozen"},
    "decoder": {"kind": "linear"},
    "task": {"kind": "quantile", "quantile": 0.75},
    "data": {"kind": "scenes", "scenes": "images/*.tif", "labels": "labels/{stem}.tif",
             "window": 64, "split": {"kind": "group", "val": ["b"], "test": ["c"]}},
    "train": {"epochs": 1, "batch_size": 1, "run": "run", "accelerator": "cpu",
              "precision": "32-true"},
}))
geotune.fit("recipe.yaml")
metrics = geotune.test("run")
assert Path("run/report.html").is_file()
task = json.loads(Path("run/adapter.json").read_text())["task"]
assert task["quantile"] == 0.75 and task["std"] > 0
"""


def registrations(code: str) -> int:
    """Number of registry entries that an example adds."""
    return len(re.findall(r"^[A-Z_]+\[", code, re.MULTILINE))


def test_a_method_is_its_options_its_file_and_one_line(package: Path) -> None:
    code = write(package, "A tuning method")
    assert registrations(code) == 1 and python_files(package) == ["ssf.py", "ssf_options.py"]
    run(package, code + METHOD)


def test_a_decoder_is_its_options_its_file_and_one_line(package: Path) -> None:
    code = write(package, "A decoder")
    assert registrations(code) == 1
    assert python_files(package) == ["pointwise.py", "pointwise_options.py"]
    run(package, code + DECODER)


@pytest.mark.parametrize("name", ["auto", "corners"])
def test_an_object_label_format_is_one_file_and_one_line(package: Path, name: str) -> None:
    code = write(package, "A format of object labels")
    assert registrations(code) == 1 and python_files(package) == ["corners.py"]
    printed = run(package, code + FORMAT.replace("FORMAT", repr(name)))
    assert "10.0, 20.0, 30.0, 40.0" in printed


def test_a_task_is_its_options_its_file_and_three_lines(package: Path) -> None:
    code = write(package, "A task")
    assert registrations(code) == 3
    assert python_files(package) == ["quantile.py", "quantile_options.py"]
    run(package, code + TASK)


def python_files(folder: Path) -> list[str]:
    """The files of the package."""
    return sorted(p.name for p in (folder / "my_package").glob("*.py") if p.stem != "__init__")
