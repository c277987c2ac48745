"""The public names, and what importing geotune and its light commands import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import geotune

HEAVY = (
    "torch",
    "timm",
    "rasterio",
    "lightning",
    "geopandas",
    "matplotlib",
    "peft",
    "torchvision",
    "shapely",
    "numpy",
)

REPORT = (
    "\nimport sys, json; modules = sorted({name.partition('.')[0] for name in sys.modules});"
    "\nprint('\\n' + json.dumps(modules))"
)
COMMAND = """
import sys
from geotune.cli import main
sys.argv = {argv!r}
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def modules_after(code: str) -> tuple[set[str], str]:
    """The top-level modules that some code imports, and what it prints."""
    process = subprocess.run(
        [sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    printed, _, modules = process.stdout.rstrip().rpartition("\n")
    return set(json.loads(modules)), printed


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import geotune, geotune.cli", ""),
        (COMMAND.format(argv=["geotune", "--help"]), "predict"),
        (COMMAND.format(argv=["geotune", "list", "methods"]), "side-tuning"),
        (COMMAND.format(argv=["geotune", "list", "decoders", "--json"]), '"upernet"'),
    ],
    ids=["import", "help", "list", "list as JSON"],
)
def test_light_commands_import_no_heavy_package(code: str, printed: str) -> None:
    modules, out = modules_after(code)
    assert "geotune" in modules
    assert not modules.intersection(HEAVY)
    assert printed in out


def test_workflows_import_torch_on_use() -> None:
    modules, _ = modules_after(
        "import geotune.api.fitting, geotune.api.testing, geotune.api.prediction\n"
        "import geotune.api.init.create_recipe"
    )
    assert "rasterio" in modules
    assert not modules.intersection({"torch", "timm", "lightning", "matplotlib"})


def test_methods_import_torch() -> None:
    modules, _ = modules_after("import geotune; geotune.Est")
    assert {"torch", "geotune"} <= modules


def test_every_public_name_exists() -> None:
    for name in geotune.__all__:
        assert getattr(geotune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        geotune.Nothing  # noqa: B018


def test_attached_method_trains_without_the_trainer() -> None:
    import torch

    backbone = geotune.backbone("timm/test_resnet", bands=6, pretrained=False)
    encoder = geotune.attach(backbone, geotune.Est(reduction=8))
    features = encoder(torch.randn(2, 6, 64, 64))
    assert [m.shape[1] for m in features.maps] == [tap.channels for tap in encoder.taps]
    sum(m.sum() for m in features.maps).backward()
    assert all(p.grad is None for p in backbone.parameters())
