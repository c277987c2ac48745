"""Path patterns: `*`, `?`, `[...]`, `**` as in a shell; `{band}`, `{date}`, `{scene}`, `{stem}`."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from geotune.errors import GeotuneError

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{(\w+)\}")

NAMES = ("band", "date", "scene")
"""What a user may write in braces."""

DATE = r"\d{4}-\d\d-\d\d(?:T[\d:]+Z?)?|\d{8}(?:T\d+Z?)?|\d{7}"


class Match(NamedTuple):
    """A file that a pattern found, what stood for its names, and the path without band and date."""

    path: Path
    names: dict[str, str]
    shared: str


def find(pattern: str, bands: Sequence[str] = (), fields: Sequence[str] = NAMES) -> list[Match]:
    """Files that match `pattern`, sorted by path.

    `{band}` stands for one of `bands`, or for anything without a `/` where none are given, as
    the other `fields` do, but `{date}`, which stands for a date such as 20181013, 2018-10-13 or
    2018286. Raises `GeotuneError` for another name in braces.
    """
    regex, shell, names = _compile(pattern, bands, fields)
    if not names and Path(pattern).is_file():
        return [Match(Path(pattern), {}, pattern)]
    found = []
    for text in sorted(glob.glob(shell, recursive=True)):
        match = regex.fullmatch(text)
        # a link to nowhere, or a folder called x.tif, is told where it is opened
        if match and (Path(text).suffix or not Path(text).is_dir()):
            found.append(Match(Path(text), _named(match), _blank(match, text)))
    return found


def format_pattern(pattern: str, names: Mapping[str, str]) -> list[Path]:
    """Files of `pattern` with `names` put for what stands in braces.

    The path itself where it has no `*`, even if it does not exist.
    """
    unknown = [name for name in re.findall(r"\{(\w*)\}", pattern) if name not in names]
    if unknown:
        raise GeotuneError(
            f"{pattern}: has {{{unknown[0]}}}; expected "
            + " or ".join(f"{{{name}}}" for name in names)
        )
    text = re.sub(r"\{(\w+)\}", lambda match: names[match[1]], pattern)
    if Path(text).is_file() or not glob.has_magic(text):
        return [Path(text)]
    escaped = re.sub(r"\{(\w+)\}", lambda match: glob.escape(names[match[1]]), pattern)
    return [Path(found) for found in sorted(glob.glob(escaped, recursive=True))]


def fields_of(pattern: str, text: str, fields: Sequence[str]) -> dict[str, str] | None:
    """What stands for each name in `text`; None where it does not match `pattern`."""
    match = _compile(pattern, (), fields)[0].fullmatch(text)
    return None if match is None else _named(match)


def _compile(
    pattern: str, bands: Sequence[str], fields: Sequence[str]
) -> tuple[re.Pattern[str], str, set[str]]:
    """A regular expression with the names as groups, the shell's pattern, and the names."""
    parts: list[str] = []
    names: set[str] = set()
    end = 0
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        name = token[1]
        if name is None:
            parts.append(_shell(token[0]))
        elif name not in fields:
            raise GeotuneError(
                f"{pattern}: has {{{name}}}; expected {{band}}, {{date}} or {{scene}} "
                "(or * for any text)"
            )
        elif name in names:
            parts.append(f"(?P<_{name}_{token.start()}>(?P={name}))")
        else:
            names.add(name)
            choice = DATE if name == "date" else "[^/]+"
            if name == "band" and bands:
                longest_first = sorted(bands, key=len, reverse=True)
                choice = "|".join(re.escape(band) for band in longest_first)
            parts.append(f"(?P<{name}>{choice})")
    parts.append(re.escape(pattern[end:]))
    return re.compile("".join(parts)), re.sub(r"\{\w+\}", "*", pattern), names


def _shell(token: str) -> str:
    if token == "**/":
        return "(?:.*/)?"
    if token == "**":
        return ".*"
    if token == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    return "[^" + token[2:] if token.startswith("[!") else token


def _named(match: re.Match[str]) -> dict[str, str]:
    return {name: match[name] for name in match.re.groupindex if not name.startswith("_")}


def _blank(match: re.Match[str], text: str) -> str:
    """The path with nothing where its band and date stood."""
    for start, end in sorted(_spans(match), reverse=True):
        text = text[:start] + text[end:]
    return text


def _spans(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    for name in match.re.groupindex:
        if name.lstrip("_").partition("_")[0] in ("band", "date"):
            yield match.span(name)
