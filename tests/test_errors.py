"""Error codes: stable, documented and complete."""

from __future__ import annotations

import ast
import pickle
import re
import runpy
from pathlib import Path

from geotune.errors import ERROR_CODES, GeotuneError, RecipeError

ROOT = Path(__file__).parents[1]


def test_the_page_lists_every_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_error_page.py"))
    source = (ROOT / "src" / "geotune" / "errors.py").read_text(encoding="utf-8")
    expected = script["page"](source)
    assert (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8") == expected
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)` \|", expected, re.MULTILINE)) == sorted(
        ERROR_CODES
    )


def test_every_error_in_the_source_has_a_code_that_is_listed() -> None:
    used = set()
    for path in sorted((ROOT / "src" / "geotune").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and name in ("GeotuneError", "RecipeError"):
                codes = [word.value for word in node.keywords if word.arg == "code"]
                assert codes, f"{path}:{node.lineno}: no code"
                if isinstance(codes[0], ast.Constant):
                    used.add(codes[0].value)
    assert used <= set(ERROR_CODES)


def test_an_error_survives_the_way_from_a_worker_process() -> None:
    error = RecipeError("x: unknown key", code="recipe-invalid", key="x", file="a.yaml")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (made here)
    assert isinstance(copy, GeotuneError) and type(copy) is RecipeError
    assert (str(copy), copy.code, copy.key, copy.file) == (
        "x: unknown key",
        "recipe-invalid",
        "x",
        Path("a.yaml"),
    )
