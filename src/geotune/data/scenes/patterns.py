"""Path patterns: `*`, `?`, `[...]`, `**` as in a shell; `{band}`, `{date}`, `{scene}`, `{stem}`."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from geotune.errors import GeotuneError

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{(\w+)\}")

FIELDS = ("band", "date", "scene")
"""Fields that a pattern of images may contain in braces."""

DATE = r"\d{4}-\d\d-\d\d(?:T[\d:]+Z?)?|\d{8}(?:T\d+Z?)?|\d{7}"


class Match(NamedTuple):
    """A file that matches a pattern.

    Attributes:
        path: the file.
        fields: the text of each field of the pattern.
        scene_path: the path without the text of `{band}` and `{date}`; equal for the files of a
            scene.
    """

    path: Path
    fields: dict[str, str]
    scene_path: str


def match_files(
    pattern: str, bands: Sequence[str] = (), fields: Sequence[str] = FIELDS
) -> list[Match]:
    """Find the files that match `pattern`, sorted by path.

    `{band}` matches one of `bands`; `{date}` a date such as 20181013, 2018-10-13 or 2018286. Other
    fields, and `{band}` without `bands`, match any text without `/`. Raises `GeotuneError` for an
    unknown field.
    """
    regex, shell, names = _compile(pattern, bands, fields)
    if not names and Path(pattern).is_file():
        return [Match(Path(pattern), {}, pattern)]
    matches = []
    for text in sorted(glob.glob(shell, recursive=True)):
        match = regex.fullmatch(text)
        # a broken link, or a folder named x.tif, is reported when it is opened
        if match and (Path(text).suffix or not Path(text).is_dir()):
            matches.append(Match(Path(text), _fields(match), _scene_path(match, text)))
    return matches


def format_pattern(pattern: str, fields: Mapping[str, str]) -> list[Path]:
    """Find the files that match `pattern` with its fields replaced by `fields`.

    A path without `*` is returned whether or not it exists.
    """
    unknown = [name for name in re.findall(r"\{(\w*)\}", pattern) if name not in fields]
    if unknown:
        raise _unknown_field(pattern, unknown[0], fields)
    text = re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], pattern)
    if Path(text).is_file() or not glob.has_magic(text):
        return [Path(text)]
    escaped = re.sub(r"\{(\w+)\}", lambda match: glob.escape(fields[match[1]]), pattern)
    return [Path(path) for path in sorted(glob.glob(escaped, recursive=True))]


def parse_fields(pattern: str, text: str, fields: Sequence[str]) -> dict[str, str] | None:
    """The text of each field of `pattern` in `text`; None if it does not match."""
    match = _compile(pattern, (), fields)[0].fullmatch(text)
    return None if match is None else _fields(match)


def _compile(
    pattern: str, bands: Sequence[str], fields: Sequence[str]
) -> tuple[re.Pattern[str], str, set[str]]:
    """A regular expression with a group per field, a shell pattern, and the fields."""
    pieces: list[str] = []
    names: set[str] = set()
    end = 0
    for token in _TOKEN.finditer(pattern):
        pieces.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        name = token[1]
        if name is None:
            pieces.append(_shell_to_regex(token[0]))
        elif name not in fields:
            raise _unknown_field(pattern, name, fields)
        elif name in names:
            pieces.append(f"(?P<_{name}_{token.start()}>(?P={name}))")
        else:
            names.add(name)
            choice = DATE if name == "date" else "[^/]+"
            if name == "band" and bands:
                longest_first = sorted(bands, key=len, reverse=True)
                choice = "|".join(re.escape(band) for band in longest_first)
            pieces.append(f"(?P<{name}>{choice})")
    pieces.append(re.escape(pattern[end:]))
    return re.compile("".join(pieces)), re.sub(r"\{\w+\}", "*", pattern), names


def _unknown_field(pattern: str, name: str, fields: Iterable[str]) -> GeotuneError:
    expected = " or ".join(f"{{{field}}}" for field in fields)
    return GeotuneError(
        f"{pattern}: unknown field {{{name}}}; expected {expected} (or * for any text)",
        code="pattern-invalid",
    )


def _shell_to_regex(token: str) -> str:
    if token == "**/":
        return "(?:.*/)?"
    if token == "**":
        return ".*"
    if token == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    return "[^" + token[2:] if token.startswith("[!") else token


def _fields(match: re.Match[str]) -> dict[str, str]:
    return {name: match[name] for name in match.re.groupindex if not name.startswith("_")}


def _scene_path(match: re.Match[str], text: str) -> str:
    spans = [
        match.span(name)
        for name in match.re.groupindex
        if name.lstrip("_").partition("_")[0] in ("band", "date")
    ]
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + text[end:]
    return text
