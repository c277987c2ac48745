"""Path patterns: `*`, `?`, `[...]`, `**` as in a shell; fields such as `{band}` and `{tile}`."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from geotune.errors import GeotuneError
from geotune.utils.paths import SYSTEM_FOLDERS, existing_path
from geotune.utils.remote import list_files, scheme_of, to_path
from geotune.utils.text import nfc

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{(\w+)\}")

_ESCAPED = re.compile(r"\[([*?[])\]")

FIELDS = ("band", "date", "scene")
"""Fields with a meaning; a pattern of images may contain others."""

NOT_FOUND = "file not found"

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


class _Pattern(NamedTuple):
    """A pattern as a regular expression with a group per field, for a shell, and its fields."""

    regex: re.Pattern[str]
    shell: str
    shell_any_case: str
    names: set[str]


def match_files(
    pattern: str, bands: Sequence[str] = (), fields: Sequence[str] | None = None
) -> list[Match]:
    """Find the files that match `pattern`, sorted by path.

    `{band}` matches one of `bands`; `{date}` a date such as 20181013, 2018-10-13 or 2018286. Other
    fields, and `{band}` without `bands`, match any text without `/`. Existing folders are matched
    as they are, also with brackets in their names; Unicode in any normal form. Hidden files and
    folders of the system are passed over. Raises `GeotuneError` for a field that is not in
    `fields`, or by default for one that is probably misspelt.
    """
    if not re.search(r"\{\w+\}", pattern):
        path = existing_path(to_path(pattern))
        if path.is_file():
            _check_utf8(path)
            return [Match(path, {}, str(path))]
    matches: dict[str, Match] = {}
    for form in dict.fromkeys(unicodedata.normalize(f, pattern) for f in ("NFC", "NFD")):
        compiled = _compile(_with_literal_folders(form), bands, fields)
        for text in _glob(compiled.shell):
            match = compiled.regex.fullmatch(text)
            path = to_path(text)
            # a broken link, or a folder named x.tif, is reported when it is opened
            is_file = bool(path.suffix) or not path.is_dir()
            if match and is_file and not _is_passed_over(text, pattern):
                _check_utf8(path)
                matches[text] = Match(path, _fields(match), _scene_path(match, text))
    return [matches[text] for text in sorted(matches)]


def _check_utf8(path: Path) -> None:
    """Raise `GeotuneError` for a path that GDAL cannot open, nor a report show."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise GeotuneError(
            f"{shown}: its name is not UTF-8 text; rename the file or folder",
            code="file-unreadable",
        ) from error


def files_in_other_case(pattern: str) -> list[Path]:
    """The paths that match `pattern` but for upper and lower case, sorted."""
    if scheme_of(pattern):
        return []
    compiled = _compile(_with_literal_folders(pattern), (), None)
    found = set(glob.glob(compiled.shell_any_case, recursive=True))
    found -= set(glob.glob(compiled.shell, recursive=True))
    return [Path(text) for text in sorted(found) if not _is_passed_over(text, pattern)]


def explain_no_match(pattern: str) -> str:
    """Why no file matches `pattern`, as far as that can be seen."""
    folder = _ESCAPED.sub(r"\1", pattern)
    if to_path(folder).is_dir():
        return f"is a folder; give a pattern of its files, such as {folder.rstrip('/')}/*.tif"
    others = files_in_other_case(pattern)
    if others:
        return f"no file matches, but {others[0]} does in another case; write it as it is"
    wildcards = {token[0][0] for token in _TOKEN.finditer(_ESCAPED.sub("", pattern))}
    if "[" in wildcards:
        return "no file matches; [...] is one of the characters in it, and [[] is a bracket"
    return "no file matches" if wildcards else NOT_FOUND


def format_pattern(pattern: str, fields: Mapping[str, str]) -> list[Path]:
    """Find the files that match `pattern` with its fields replaced by `fields`.

    A path without `*` is returned whether or not it exists.
    """
    unknown = [name for name in re.findall(r"\{(\w*)\}", pattern) if name not in fields]
    if unknown:
        raise _unknown_field(pattern, unknown[0], fields)
    path = existing_path(to_path(re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], pattern)))
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    escaped = re.sub(r"\{(\w+)\}", lambda match: glob.escape(fields[match[1]]), pattern)
    return [match.path for match in match_files(escaped)]


def _glob(shell: str) -> list[str]:
    """The files that match a shell pattern, on this machine or on a server."""
    if scheme_of(shell) is None:
        return glob.glob(shell, recursive=True)
    return list_files(shell) if glob.has_magic(shell) else [shell] * to_path(shell).exists()


def parse_fields(pattern: str, text: str, fields: Sequence[str]) -> dict[str, str] | None:
    """The text of each field of `pattern` in `text`; None if it does not match."""
    match = _compile(pattern, (), fields).regex.fullmatch(text)
    return None if match is None else _fields(match)


def _is_passed_over(text: str, pattern: str) -> bool:
    named = pattern.split("/")
    return any(part in SYSTEM_FOLDERS and part not in named for part in Path(text).parts)


def _with_literal_folders(pattern: str) -> str:
    """Escape the leading folders that exist, so that brackets in their names are no classes."""
    parts = pattern.split("/")
    for i in range(1, len(parts)):
        folder = "/".join(parts[:i])
        if folder and not os.path.isdir(folder):
            parts[: i - 1] = [glob.escape(part) for part in parts[: i - 1]]
            return "/".join(parts)
    return "/".join([*map(glob.escape, parts[:-1]), parts[-1]])


def _compile(pattern: str, bands: Sequence[str], fields: Sequence[str] | None) -> _Pattern:
    regex: list[str] = []
    shell: list[str] = []
    any_case: list[str] = []
    names: set[str] = set()

    def add_literal(text: str) -> None:
        regex.append(re.escape(text))
        shell.append(glob.escape(text))
        any_case.append(re.sub("[A-Za-z]", _either_case, glob.escape(text)))

    end = 0
    for token in _TOKEN.finditer(pattern):
        add_literal(pattern[end : token.start()])
        end = token.end()
        name = token[1]
        if name is not None:
            _check_field(pattern, name, fields)
            if name in names:
                regex.append(f"(?P<_{name}_{token.start()}>(?P={name}))")
            else:
                names.add(name)
                regex.append(f"(?P<{name}>{_values_of(name, bands)})")
        else:
            regex.append(_shell_to_regex(token[0]))
        for pieces in (shell, any_case):
            pieces.append(token[0] if name is None else "*")
    add_literal(pattern[end:])
    return _Pattern(re.compile("".join(regex)), "".join(shell), "".join(any_case), names)


def _values_of(field: str, bands: Sequence[str]) -> str:
    """A regular expression of the text of a field."""
    if field == "band" and bands:
        return "|".join(re.escape(band) for band in sorted(bands, key=len, reverse=True))
    return DATE if field == "date" else "[^/]+"


def _check_field(pattern: str, name: str, fields: Sequence[str] | None) -> None:
    if not name.isidentifier() or name.startswith("_"):
        raise _unknown_field(pattern, name, fields or FIELDS)
    if fields is None:
        if name not in FIELDS and get_close_matches(name.lower(), FIELDS, cutoff=0.85):
            raise _unknown_field(pattern, name, FIELDS)
    elif name not in fields:
        raise _unknown_field(pattern, name, fields)


def _either_case(letter: re.Match[str]) -> str:
    return f"[{letter[0].lower()}{letter[0].upper()}]"


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
    inside = token[2:-1] if token.startswith("[!") else token[1:-1]
    for character in "\\[]^":
        inside = inside.replace(character, f"\\{character}")
    return f"[^{inside}]" if token.startswith("[!") else f"[{inside}]"


def _fields(match: re.Match[str]) -> dict[str, str]:
    names = [name for name in match.re.groupindex if not name.startswith("_")]
    return {name: nfc(match[name]) for name in names}


def _scene_path(match: re.Match[str], text: str) -> str:
    spans = [
        match.span(name)
        for name in match.re.groupindex
        if (name[1:].rpartition("_")[0] if name.startswith("_") else name) in ("band", "date")
    ]
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + text[end:]
    return text
