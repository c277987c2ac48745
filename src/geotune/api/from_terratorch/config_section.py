"""Sections of a TerraTorch configuration, which know what was read of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geotune.config.loader import read_values
from geotune.errors import GeotuneError


@dataclass
class ConfigSection:
    """Values by key.

    Attributes:
        file: the configuration.
        path: of the section, such as `model.init_args`; empty for the whole file.
        values: by key.
    """

    file: Path
    path: str
    values: Mapping[str, Any]
    _read: set[str] = field(default_factory=set)
    _sections: dict[str, ConfigSection] = field(default_factory=dict)

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which is then taken over; `default` if it is absent or null."""
        self._read.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def section(self, key: str) -> ConfigSection:
        """A section below; empty if it is absent. Raises `GeotuneError` if it is a value."""
        self._read.add(key)
        if key not in self._sections:
            value = self.values.get(key)
            value = {} if value is None else value
            if not isinstance(value, Mapping):
                raise self.error(key, "a section of keys")
            self._sections[key] = ConfigSection(self.file, self.key(key), value)
        return self._sections[key]

    def object(self, key: str) -> tuple[str, ConfigSection]:
        """The class of an entry `class_path`, without its module, and its `init_args`."""
        entry = self.section(key)
        return class_name(entry.take("class_path", "")), entry.section("init_args")

    def key(self, key: str) -> str:
        """The full path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, expected: str) -> GeotuneError:
        """The error for a value that cannot be taken over."""
        value = self.values.get(key)
        found = "nothing" if value is None else repr(value)[:80]
        return GeotuneError(
            f"{self.file}: {self.key(key)}: found {found}, expected {expected}",
            code="terratorch-config",
            key=self.key(key),
            file=self.file,
        )

    def rest(self) -> Iterator[tuple[str, Any]]:
        """Keys with a value that nothing has taken, with their full paths."""
        for key, value in self.values.items():
            if key in self._sections:
                yield from self._sections[key].rest()
            elif key not in self._read and value not in (None, [], {}, ""):
                yield self.key(key), value


def class_name(path: object) -> str:
    """The class of a `class_path`, without its module."""
    return str(path or "").rpartition(".")[2]


def objects(entries: object) -> list[tuple[str, Mapping[str, Any]]]:
    """Classes and arguments of a list of `class_path` entries."""
    listed = entries if isinstance(entries, Sequence) and not isinstance(entries, str) else []
    return [
        (class_name(entry.get("class_path")), entry.get("init_args") or {})
        for entry in listed
        if isinstance(entry, Mapping)
    ]


def read_config(path: Path) -> ConfigSection:
    """Read a configuration; no class of it is imported.

    Raises `GeotuneError` for a file that is missing, no YAML, or no configuration of TerraTorch.
    """
    values = read_values(path, "a TerraTorch configuration", "model")
    config = ConfigSection(path, "", values)
    if not ({"model", "data"} <= values.keys()):
        found = ", ".join(map(str, values)) or "no section"
        raise GeotuneError(
            f"{path}: found the sections {found}, expected a configuration of TerraTorch with "
            "model and data, as terratorch fit reads it",
            code="terratorch-config",
            key="model" if "model" not in values else "data",
            file=path,
        )
    return config
