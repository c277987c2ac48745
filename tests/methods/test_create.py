"""The method in a file of docs/how-to/extending.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import geotune
from geotune.api.fitting import fit
from geotune.api.prediction import predict
from geotune.config import parse_recipe
from geotune.config.method_options import PythonMethodOptions
from geotune.config.schema import files_of_recipe
from geotune.methods.create import create_method
from helpers.errors import raises

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "extending.md"
OWN = "python/scaling.py:Scaling"
VIT = {"name": "timm/vit_tiny_patch16_224", "pretrained": False, "bands": 3}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the documentation, in the current folder."""
    match = re.search(r"```python\n(# scaling.py\n.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert match is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scaling.py").write_text(match[1], encoding="utf-8")
    return tmp_path / "scaling.py"


@pytest.fixture
def values(
    file: Path, tiny_values: Callable[..., dict[str, Any]]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A recipe with the method; further keys of it as argument."""

    def with_keys(keys: dict[str, Any]) -> dict[str, Any]:
        method = {"kind": OWN, "stem_width": 4, **keys}
        backbone = {"name": "timm/resnet18", "pretrained": False}
        return tiny_values({"backbone": backbone, "train.epochs": 1}) | {"method": method}

    return with_keys


def test_fit_plan_and_predict_use_it(
    values: Callable[..., dict[str, Any]], file: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(values({"options": {"start": 0.5}}))
    assert recipe.method == PythonMethodOptions(kind=OWN, stem_width=4, options={"start": 0.5})
    assert files_of_recipe(recipe) == {"method": OWN}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values({"options": {"start": 0.5}})))
    assert geotune.plan(tmp_path / "own.yaml").peak.total > 0
    result = fit(recipe, run=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "adapter.json").read_text())
    assert config["method"]["kind"] == OWN and config["method"]["options"] == {"start": 0.5}
    scene = tiny_scenes / "scenes" / "d.tif"
    ran = tmp_path / "ran"
    file.write_text(f"{file.read_text()}\nopen({str(ran)!r}, 'w').close()\n")
    with raises("adapter-code", key="method.kind", mentions=[f"--method {OWN}"]):
        predict(result.run, scene, tmp_path / "maps")
    assert not ran.exists()
    (prediction,) = predict(result.run, scene, tmp_path / "maps", method=OWN)
    assert prediction.files[0].is_file() and ran.exists()


def test_only_its_parameters_train(file: Path) -> None:
    method = create_method(PythonMethodOptions(kind=OWN, options={"start": 0.5}))
    encoder = geotune.attach(geotune.backbone(**VIT), method)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    scales = [name for name in trained if name.endswith("scale")]
    assert len(scales) == 24 and all("stem" in name for name in set(trained) - set(scales))


def test_reading_a_recipe_runs_no_code(
    values: Callable[..., dict[str, Any]], file: Path, tmp_path: Path
) -> None:
    file.write_text("raise SystemExit")
    parse_recipe(values({}))


@pytest.mark.parametrize("kind", ["python/scaling.py", "python/scaling.txt:A", "python/a.py:1"])
def test_other_forms_are_refused(values: Callable[..., dict[str, Any]], kind: str) -> None:
    with raises("recipe-invalid", key="method.kind"):
        parse_recipe(values({"kind": kind}))


def test_keys_of_the_class_belong_under_options(values: Callable[..., dict[str, Any]]) -> None:
    with raises("recipe-invalid", key="method.start", mentions=["options"]):
        parse_recipe(values({"start": 0.5}))


def test_faults_of_the_file_are_named(file: Path) -> None:
    def created(kind: str, **options: Any) -> None:
        create_method(PythonMethodOptions(kind=kind, options=options))

    with raises("file-missing", key="method.kind", mentions=["none.py"]):
        created("python/none.py:Scaling")
    with raises("method-code", key="method.kind", mentions=["Nothing"]):
        created("python/scaling.py:Nothing")
    with raises("method-code", key="method.kind", mentions=["Scale", "geotune.Method"]):
        created("python/scaling.py:Scale")
    with raises("recipe-invalid", mentions=["start"]):
        created(OWN, start=-1)
    with raises("recipe-invalid", mentions=["strat", "start"]):
        created(OWN, strat=1)
    file.write_text("import nothing_of_this_name")
    with raises("method-code", key="method.kind", mentions=["ModuleNotFoundError"]):
        created(OWN)
