"""Whose a run folder is, and how far its training got."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from geotune.config import Recipe, parse_recipe
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir


@pytest.fixture
def recipe(tiny_values: Callable[..., dict[str, Any]]) -> Callable[..., Recipe]:
    return lambda changes=None: parse_recipe(tiny_values(changes))


def test_states(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    folder = RunDir(tmp_path / "runs" / "one")
    assert folder.state(recipe()) == "new"
    folder.path.mkdir(parents=True)
    assert folder.state(recipe()) == "new"  # an empty folder is nobody's
    folder.create(recipe())
    assert folder.state(recipe()) == "unfinished"
    folder.write_json("run", {})
    assert folder.state(recipe()) == "finished"
    assert folder.state(recipe({"train.run": "elsewhere"})) == "finished"


def test_another_recipe(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    folder = RunDir(tmp_path / "run")
    folder.create(recipe())
    other = recipe(
        {
            "train.epochs": 9,
            "train.batch_size": 2,
            "train.seed": 5,
            "train.lr": 1e-4,
            "train.grad_clip_norm": 2,
            "train.workers": 1,
            "method": {"kind": "frozen", "stem_width": 0},
        }
    )
    with pytest.raises(GeotuneError) as error:
        folder.state(other)
    message = str(error.value)
    assert str(folder.path) in message and "--fresh" in message
    assert "method.kind: est -> frozen" in message and "method.min_width" not in message
    assert "and 1 more keys" in message
    with pytest.raises(GeotuneError, match=r"\(train\.epochs: 3 -> 9\)"):
        folder.state(recipe({"train.epochs": 9}))


def test_killed_before_the_recipe_was_written(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    folder = RunDir(tmp_path)
    for name in (".lock", ".recipe.yaml.123.part"):
        (tmp_path / name).touch()
    assert folder.state(recipe()) == "new"


def test_killed_while_it_was_emptied(
    tmp_path: Path, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is never a finished run that lacks something, nor nobody's folder."""
    folder = RunDir(tmp_path)
    folder.create(recipe())
    for name in ("run.json", "metrics.json", "adapter.safetensors", "history.csv"):
        (tmp_path / name).touch()
    unlink, left = Path.unlink, [0]

    def one_less(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", one_less)
    for _ in range(20):
        left[0] = 1
        with suppress(InterruptedError):
            folder.clear()
        if (tmp_path / "recipe.yaml").exists():
            assert folder.state(recipe()) == "unfinished"
    left[0] = 20
    folder.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_foreign(tmp_path: Path, recipe: Callable[..., Recipe], kind: str) -> None:
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(GeotuneError, match=r"mine: is there and is no run of geotune"):
        RunDir(path).state(recipe())


def test_json(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.write_json("metrics", {"a": [math.nan, 1.5, (math.inf,)], "é": {"b": -math.inf}})
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [None, 1.5, [None]], "é": {"b": None}}
    assert folder.read_json("metrics") == json.loads(text)
    with pytest.raises(GeotuneError, match=r"run\.json: is not there; .* no finished run"):
        folder.read_json("run")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(GeotuneError, match=r"run\.json: cannot be read as JSON"):
        folder.read_json("run")


def test_details_are_what_is_no_metric(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    each = {"val": {"f1": 1.0}}
    values = {"threshold": {"val": {"tree": 0.4}, "test": {}}, "regions": {"val": each}}
    for gap in (None, {"val": 1}):
        folder.write_json("metrics", {**each, **values, "gap": gap})
        assert folder.details("val") == {"threshold": {"tree": 0.4}}
