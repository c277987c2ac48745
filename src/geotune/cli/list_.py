"""`geotune list`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Literal, cast, get_args

from geotune.cli.console import Json, escape, out, print_json, print_table
from geotune.errors import GeotuneError
from geotune.utils.text import similar_names

if TYPE_CHECKING:
    from geotune.config.reference import Kind, Option, Section
    from geotune.info import Category


def list_(
    category: Literal[
        "backbones", "methods", "decoders", "tasks", "datasets",
        "backbone", "method", "decoder", "task", "data", "split", "train",
        "distill",
    ],
    name: str | None = None,
    *,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List components, or every key of a section of the recipe.

    Parameters
    ----------
    category
        Components: backbones, methods, decoders, tasks or datasets. Keys of a section with type,
        default and meaning: backbone, method, decoder, task, data, split (data.split),
        train or distill.
    name
        Only names that contain this text; the full name of a backbone or of a published data set
        shows its details. In a section: a kind, such as unet in decoder, or text that keys contain.
    """
    from geotune.config.reference import Section

    if category in get_args(Section):
        _list_keys(cast("Section", category), name or "", as_json)
    else:
        _list_components(cast("Category", category), name, as_json)


def _list_components(category: Category, name: str | None, as_json: bool) -> None:
    from geotune.info import describe, list_components

    details = None if name is None else describe(category, name)
    if details is not None:
        values, pairs = details
        if as_json:
            print_json(values)
            return
        for label, text in pairs:
            out().print(f"[bold]{escape(label)}[/bold]: {escape(text)}")
        return
    text = (name or "").lower()
    every = list_components(category)
    rows = [row for row in every if text in row["name"].lower()]
    if as_json:
        print_json({category: rows})
        return
    if not rows:
        near = similar_names(text, [row["name"] for row in every], count=3)
        similar = f"did you mean {' or '.join(near)}? " if near else ""
        raise GeotuneError(
            f"{name}: no name of {category} contains this; {similar}Without it, geotune list "
            f"{category} shows all",
            code="option-invalid",
        )
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:  # names are copied, so other columns wrap first
        table.add_column(column, no_wrap=not table.columns, overflow="fold")
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    print_table(table)


def _list_keys(section: Section, name: str, as_json: bool) -> None:
    from geotune.config.reference import section_kinds, shared_options

    every = section_kinds(section)
    kinds = [kind for kind in every if kind.name == name] or [_with_keys(k, name) for k in every]
    kinds = [kind for kind in kinds if kind.options or name in ("", kind.name)]
    if not kinds:
        known = ", ".join(kind.name for kind in every if kind.name)
        raise GeotuneError(
            f"{name}: no key of {section} contains this"
            + (f"; kinds of {section}: {known}" if known else ""),
            code="option-invalid",
        )
    if as_json:
        print_json({section: [asdict(kind) for kind in kinds]})
        return
    prefix = "data.split" if section == "split" else section
    for kind in kinds:
        if name in ("", kind.name) and kind.name:
            line = f"[bold]{prefix}.kind: {kind.name}[/bold]  {escape(kind.description)}"
            out().print(line, soft_wrap=False)
    for owners, options in shared_options(kinds):
        if len(every) > 1 and name != owners[0]:
            only = "every kind" if len(owners) == len(every) else ", ".join(owners)
            out().print(f"\n[bold]{only}[/bold]", soft_wrap=False)
        _print_options(options)


def _with_keys(kind: Kind, text: str) -> Kind:
    return replace(kind, options=tuple(o for o in kind.options if text.lower() in o.key))


def _print_options(options: tuple[Option, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("key", no_wrap=True)
    table.add_column("meaning")
    for option in options:
        default = f"; default {option.default}" if option.default else ""
        default = f"; {option.default}" if option.default == "required" else default
        table.add_row(option.key, escape(f"{option.type}{default}"))
        table.add_row("", f"[dim]{escape(option.description)}[/dim]")
    print_table(table)
