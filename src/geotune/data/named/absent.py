"""What is said of a named data set whose files are not where they should be."""

from __future__ import annotations

from pathlib import Path

from geotune.datasets.base import InLists, NamedDataset
from geotune.types import GeotuneError


def absent(about: NamedDataset, root: Path, what: str, source: str = "") -> GeotuneError:
    """What is missing, where to get it, and how the files have to lie."""
    return GeotuneError(
        f"{root}: {what}; get it from {source or about.source} ({about.licence}) and unpack it "
        "there, or mend data.root. Expected under it:\n" + "\n".join(layout(about))
    )


def layout(about: NamedDataset) -> list[str]:
    """The files of a data set from its root, one pattern a line."""

    def lines(patterns: tuple[str, ...], what: str) -> list[str]:
        return [f"  {'or ' if i else ''}{pattern}{what}" for i, pattern in enumerate(patterns)]

    found = lines(tuple(about.images), "")
    found += lines(tuple(about.labels), "  (labels)")
    found += lines(tuple(about.oriented_labels), "  (labels of oriented boxes)")
    for name, said in about.divisions.items():
        if isinstance(said, InLists):
            files = ", ".join(dict.fromkeys(said.files.values()))
            where = f", from {said.source}" if said.source else ""
            found.append(f"  {files}  (lists of the split {name}{where})")
    return found
