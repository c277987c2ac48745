"""The documentation: every code block is run, parsed or validated; generated parts are complete."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import geotune
from geotune.bench.suite import Suite
from geotune.cli.app import app
from geotune.config import parse_recipe
from geotune.config.loader import load_recipe, parse
from geotune.config.schema import Recipe
from geotune.errors import RecipeError
from geotune.registry import ANNOTATION_FORMATS, DECODERS, METHODS, SPLITTERS, TASKS
from geotune.training.run_dir import OWNED_FILES

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
RUN_BY_OTHER_TESTS = {"extending.md", "own-backbone.md"}
SPHINX = {"{toctree}", "{eval-rst}", "{image}", "{include}"}  # checked by the build
TEXT = "text"  # pictures of text, files that are not parsed


OTHER_PROGRAMS = (
    "export", "flower-superlink", "flower-supernode", "flwr", "git", "mlflow", "pip", "ray",
    "ssh", "terratorch", "uv",
)  # fmt: skip
"""Programs that pages use beside geotune."""


def blocks(language: str) -> list[Any]:
    """The code blocks of a language in all pages, as parameters of a test."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[2] == language:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[3], id=f"{page.name}:{line}"))
    return found


def test_every_block_has_a_language_that_is_checked() -> None:
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            known = {"bash", "json", "python", "xml", "yaml", TEXT, *SPHINX}
            assert match[2] in known, f"{page}: {match[0][:80]}"


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_part_of_a_valid_recipe_or_suite(text: str) -> None:
    values = yaml.safe_load(text)
    if not values.keys() <= {*Recipe.model_fields, "split"}:
        recipes = {name: f"recipes/{name}.yaml" for name in ("ships", "sen1floods11")}
        parse(Suite, {"recipes": recipes, **values}, "suite")
        return
    problems = []
    for sections in base_sections():
        try:
            parse_recipe(merged(sections, values))
            return
        except RecipeError as error:
            problems.append(str(error))
    pytest.fail(min(problems, key=len))


def base_sections() -> Iterator[dict[str, Any]]:
    """Sections that complete a part of a recipe: every task with every decoder and data."""
    data = {
        "scenes": {"scenes": "scenes/*.tif", "labels": "labels/{stem}.tif"},
        "chips": {"images": "images", "masks": "masks"},
        "images": {"images": "images"},
        "synthetic": {},
    }
    for task in TASKS:
        for decoder in DECODERS:
            for kind, keys in data.items():
                classes = {} if task in ("regress", "density") else {"classes": ["a", "b"]}
                yield {
                    "backbone": {"name": "timm/resnet18"},
                    "method": {"kind": "est"},
                    "decoder": {"kind": decoder},
                    "task": {"kind": task, **classes},
                    "data": {"kind": kind, **keys, "split": {"kind": "random"}},
                }


def merged(sections: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The sections with a block's values; a section of another kind replaces the whole section."""
    sections = {name: dict(section) for name, section in sections.items()}
    for name, section in values.items():
        place = sections["data"] if name == "split" else sections
        base = place.get(name, {})
        other = "kind" in section and section["kind"] != base.get("kind")
        split = {} if name != "data" else {"split": {"kind": "random"}}
        place[name] = {**split, **section} if other else {**base, **section}
    return sections


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands_exist_with_their_options_and_keys(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "geotune" in words[:-1] and words[0] in ("geotune", "torchrun"):
            check_command([w for w in words[words.index("geotune") + 1 :] if w != "--remote"])
        elif words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif words[:1] == ["python"]:
            assert (ROOT / words[1]).is_file(), line
        else:
            assert not words or words[0] in OTHER_PROGRAMS, line


def check_command(words: list[str]) -> None:
    """Parse a command; the keys that it changes must exist in the recipe."""
    command, bound, _ = app.parse_args(
        words, print_error=False, exit_on_error=False, help_on_error=False
    )
    path = bound.arguments.get("recipe")
    if path is not None:
        known = (ROOT / path).is_file() and "suites" not in Path(path).parts
        assert known or not str(path).startswith("recipes/"), path
        recipe = ROOT / path if known else ROOT / "recipes/ships.yaml"
        load_recipe(recipe, bound.arguments.get("overrides", ()))
    assert callable(command)


@pytest.mark.parametrize("text", blocks("json"))
def test_json_is_valid(text: str) -> None:
    assert json.loads(text)


@pytest.mark.parametrize("text", blocks("xml"))
def test_xml_is_valid(text: str) -> None:
    assert ElementTree.fromstring(text) is not None


def test_python_blocks_run(
    tiny_scenes: Path,
    tiny_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """In one folder, page by page, on a small recipe, run and scene of the names in the pages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    recipe = tiny_recipe().rename(tmp_path / "recipes/ships.yaml")
    geotune.fit(recipe, run="runs/ships")
    (tmp_path / "runs/ships-quick").symlink_to("ships")
    (tmp_path / "busan.tif").symlink_to(tiny_scenes / "scenes" / "d.tif")
    for page in PAGES:
        names: dict[str, Any] = {}
        if page.name not in RUN_BY_OTHER_TESTS:
            for match in FENCE.finditer(page.read_text(encoding="utf-8")):
                if match[2] == "python":
                    ast.parse(match[3])
                    exec(compile(match[3], str(page), "exec"), names)  # noqa: S102 (ours)


def test_generated_parts_have_every_component() -> None:
    parts = runpy.run_path(str(ROOT / "docs" / "generated_pages.py"))["PARTS"]
    commands = parts["commands"]()
    for name in app.resolved_commands():
        if not name.startswith("-"):
            assert f"## geotune {name}\n" in commands
    assert "default: False" not in commands and "<recipe name>" not in commands
    keys = parts["recipe-keys"]()
    for section in (*Recipe.model_fields, "data.split"):
        assert f"## `{section}`\n" in keys
    for kind in (*METHODS, *DECODERS, *TASKS, *SPLITTERS):
        assert f"| `{kind}` |" in keys
    assert "| `augment.rotate` |" in keys and "| `lr` | number > 0 | `0.001` |" in keys
    formats = parts["annotation-formats"]()
    assert re.findall(r"^\| `(\w+)`", formats, re.MULTILINE) == list(ANNOTATION_FORMATS)
    classes = parts["method-classes"]()
    assert re.findall(r"^\| `geotune.\w+` \| `(\w+)`", classes, re.MULTILINE) == list(METHODS)


def test_the_python_page_has_every_public_name() -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    methods = {method.implementation.partition(":")[2] for method in METHODS.values()}
    assert documented == set(geotune.__all__) - methods - {"__version__"}


def test_the_page_of_files_names_every_file_of_a_run() -> None:
    page = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in OWNED_FILES)


def test_every_page_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]:
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert name == "index" or re.search(rf"^{name}$", index, re.MULTILINE), name
