"""Parts of the reference that the program itself states; a Sphinx extension.

A page contains `<!-- generated: NAME -->`, which is replaced by the Markdown that a function of
`PARTS` returns.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
RESULT_TABLES = "explanation/result-tables.md"
RECIPE_NOTES = "reference/recipe-notes.md"
MARK = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)
OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:benchmarks|recipes)/[\w./-]+\.md)\)")
"""A link to a Markdown file of the repository outside of this folder."""
ROW = re.compile(r"^\|.*", re.MULTILINE)
"""A row of a table, whose narrow columns would break the line before a per cent sign."""


def fill(text: str) -> str:
    """A page's text with every mark replaced, and with links to pages that other parts hold.

    Raises `KeyError` for an unknown part or link.
    """
    text = MARK.sub(lambda mark: PARTS[mark[1]](), text)
    text = ROW.sub(lambda row: re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", row[0]), text)
    return OUTSIDE.sub(lambda link: f"]({_outside_pages()[link[1]]})", text)


def _outside_pages() -> dict[str, str]:
    """Where the site shows the tables of results and the notes beside recipes, by their path."""
    pages = {}
    for folder, page in (("benchmarks", RESULT_TABLES), ("recipes", RECIPE_NOTES)):
        for path in _markdown_in(folder):
            anchor = _title(path).lower().replace(" ", "-")
            pages[path.relative_to(ROOT).as_posix()] = f"/{page}#{anchor}"
    return pages


def _markdown_in(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.md"))


def _title(path: Path) -> str:
    if path.stem in ("table", "README"):
        return f"{'Suite' if path.stem == 'table' else 'Recipes'} {path.parent.name}"
    return f"Benchmark {path.stem}"


def _documents(folder: str) -> str:
    """The Markdown files of a folder of the repository, each below a heading."""
    parts = []
    for path in _markdown_in(folder):
        text = re.sub(r"^# .*\n", "", path.read_text(encoding="utf-8"))
        text = re.sub(r"^(?=#+ )", "#", text, flags=re.MULTILINE)
        parts.append(f"## {_title(path)}\n\n`{path.relative_to(ROOT)}`\n\n{text}")
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def commands() -> str:
    """The help of every command."""
    from geotune.cli.app import app

    with patch.object(sys, "argv", ["geotune"]):  # named in the usage
        text = app.generate_docs(output_format="markdown")
    text = text[text.index("\n## geotune ") :]
    text = re.sub(r" \*\[default: False\]\*", "", text.replace("<", "&lt;"))
    return text.replace("```console", "```text")


def recipe_keys() -> str:
    """Every key of a recipe, by section, with the kinds that have it."""
    from geotune.config.reference import Section, section_kinds, shared_options

    parts = []
    for section in get_args(Section):
        kinds = section_kinds(section)
        prefix = "data.split" if section == "split" else section
        parts.append(f"## `{prefix}`\n")
        if len(kinds) > 1:
            rows = [(f"`{kind.name}`", kind.description) for kind in kinds]
            parts.append(table([f"`{prefix}.kind`", ""], rows))
        for owners, options in shared_options(kinds):
            if len(kinds) > 1:
                every = len(owners) == len(kinds)
                parts.append(f"### {'Every kind' if every else ', '.join(owners)}\n")
            rows = [
                (f"`{o.key}`", o.type, f"`{o.default}`" if o.default else "", o.description)
                for o in options
            ]
            parts.append(table(["key", "values", "default", "meaning"], rows))
    return "\n".join(parts)


def changes() -> str:
    """The changelog, with its links from this site."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").removeprefix("# Changelog\n")
    return text.replace("](docs/", "](/")


def read_files() -> str:
    """Suffixes of the files that are read."""
    from geotune.data.labels.vector_io import VECTOR_SUFFIXES
    from geotune.data.scenes.find import RASTER_SUFFIXES
    from geotune.data.scenes.table import CSV, PARQUET, STAC

    rows = [
        ("images, masks, label rasters, quality masks", RASTER_SUFFIXES),
        ("Sentinel-2 products, unpacked", (".SAFE",)),
        ("polygons and points", VECTOR_SUFFIXES),
        ("tables of scenes: CSV", CSV),
        ("tables of scenes: GeoParquet (`geotune[lists]`)", PARQUET),
        ("tables of scenes: STAC (`geotune[lists]`)", STAC),
        ("GEO-Bench-2 data sets (`geotune unpack`)", (".tortilla",)),
    ]
    return table(["data", "suffixes"], [(what, ", ".join(f"`{s}`" for s in s)) for what, s in rows])


def annotation_formats() -> str:
    """Formats of object labels."""
    from geotune.registry import ANNOTATION_FORMATS

    rows = []
    for name, component in ANNOTATION_FORMATS.items():
        doc = (component.module().__doc__ or "").partition("\n")[0]
        rows.append([f"`{name}`", doc.rstrip(".")])
    return table(["`data.format`", "files"], rows)


def method_classes() -> str:
    """The class of every tuning method."""
    from geotune.registry import METHODS

    rows = []
    for kind, method in METHODS.items():
        options = method.load_options()
        name = method.implementation.partition(":")[2]
        description = (options.__doc__ or "").partition("\n")[0].rstrip(".")
        rows.append([f"`geotune.{name}`", f"`{kind}`", description])
    return table(["class", "`method.kind`", "trains"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "recipe-keys": recipe_keys,
    "read-files": read_files,
    "annotation-formats": annotation_formats,
    "method-classes": method_classes,
    "changes": changes,
    "result-tables": partial(_documents, "benchmarks"),
    "recipe-notes": partial(_documents, "recipes"),
}


def setup(app: Any) -> dict[str, Any]:
    """Connect to Sphinx."""

    def fill_page(app: Any, name: str, source: list[str]) -> None:
        source[0] = fill(source[0])

    app.connect("source-read", fill_page)
    return {"parallel_read_safe": True}
