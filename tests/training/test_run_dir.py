"""Run folders: ownership, progress and files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from geotune.config import Recipe, parse_recipe
from geotune.training.run_dir import OWNED_FILES, RunDir
from helpers.errors import raises


@pytest.fixture
def recipe(tiny_values: Callable[..., dict[str, Any]]) -> Callable[..., Recipe]:
    return lambda changes=None: parse_recipe(tiny_values(changes))


def complete_epoch(folder: RunDir) -> None:
    folder.last_checkpoint.parent.mkdir(parents=True)
    folder.last_checkpoint.write_bytes(b"")


def test_state_of_each_stage(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    folder = RunDir(tmp_path / "runs" / "one")
    assert folder.state(recipe()) == "new"
    folder.path.mkdir(parents=True)
    assert folder.state(recipe()) == "new"  # an empty folder may be used
    folder.create(recipe())
    assert folder.state(recipe()) == "new"  # before the first completed epoch
    complete_epoch(folder)
    assert folder.state(recipe()) == "unfinished"
    folder.write_json("run", {})
    assert folder.state(recipe()) == "finished"
    assert folder.state(recipe({"train.run": "elsewhere"})) == "finished"


def test_run_of_another_recipe_is_rejected_with_its_differences(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    folder = RunDir(tmp_path / "run")
    folder.create(recipe())
    complete_epoch(folder)
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
    mentions = [folder.path, "--overwrite", "method.kind: est -> frozen", "and 1 more keys"]
    with raises("run-exists", key="train.run", file=folder.path, mentions=mentions) as error:
        folder.state(other)
    assert "method.min_width" not in str(error.value)
    with raises("run-exists", mentions=["(train.epochs: 3 -> 9)", "train.epochs=N continues it"]):
        folder.state(recipe({"train.epochs": 9}))


def test_leftovers_of_a_process_killed_early_do_not_count(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    folder = RunDir(tmp_path)
    for name in (".lock", ".recipe.yaml.123.part"):
        (tmp_path / name).touch()
    assert folder.state(recipe()) == "new"


def test_interrupted_clear_leaves_an_unfinished_run(
    tmp_path: Path, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never leaves an incomplete run that looks finished, nor a folder without owner."""
    folder = RunDir(tmp_path)
    folder.create(recipe())
    for name in ("run.json", "metrics.json", "adapter.safetensors", "history.csv"):
        (tmp_path / name).touch()
    unlink, left = Path.unlink, [0]

    def interrupted_unlink(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupted_unlink)
    for _ in range(20):
        left[0] = 1
        with suppress(InterruptedError):
            folder.clear()
        if (tmp_path / "recipe.yaml").exists():
            assert folder.state(recipe()) == "unfinished"
    left[0] = len(OWNED_FILES)
    folder.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_folder_with_other_content_is_rejected(
    tmp_path: Path, recipe: Callable[..., Recipe], kind: str
) -> None:
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    with raises("folder-not-owned", key="train.run", file=path):
        RunDir(path).state(recipe())


def test_json_files_replace_nan_and_report_damage(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.write_json("metrics", {"a": [math.nan, 1.5, (math.inf,)], "é": {"b": -math.inf}})
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [None, 1.5, [None]], "é": {"b": None}}
    assert folder.read_json("metrics") == json.loads(text)
    with raises("run-incomplete", file=tmp_path / "run.json"):
        folder.read_json("run")
    (tmp_path / "run.json").write_text("{")
    with raises("file-unreadable", file=tmp_path / "run.json"):
        folder.read_json("run")


def test_details_exclude_metrics(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    each = {"val": {"f1": 1.0}}
    values = {"threshold": {"val": {"tree": 0.4}, "test": {}}, "regions": {"val": each}}
    for gap in (None, {"val": 1}):
        folder.write_json("metrics", {**each, **values, "gap": gap})
        assert folder.details("val") == {"threshold": {"tree": 0.4}}
