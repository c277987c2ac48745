"""What is wrong with data, as values; and whether reading stops at the first fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geotune.errors import GeotuneError
from geotune.utils.text import join_some

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Errors are refused by a training; warnings are not what one expects; notes are good to know."""

SKIPPED_SHARE = 0.05
"""Most of the samples that `train.skip_bad_samples` leaves out."""


@dataclass(frozen=True)
class Issue:
    """One thing that was found.

    Attributes:
        check: what looked for it, such as `files`, `overlap`.
        text: names the file or key, what was found, what was expected, and what to do.
        file: the first file that it is about; None where it is about none.
        scene: the scene that cannot be used for it; None where it is about more than one.
    """

    severity: Severity
    check: str
    text: str
    file: Path | None = None
    scene: str | None = None


@dataclass
class ErrorCollector:
    """What becomes of a file that cannot be used: raised at once, or kept.

    Attributes:
        keep: go on with the other files.
        found: what was kept, in the order in which it was met.
    """

    keep: bool = False
    found: list[Issue] = field(default_factory=list)

    @contextmanager
    def of(self, scene: str | None, file: Path) -> Iterator[None]:
        """A `GeotuneError` inside is about `scene`, or with None about all that was asked for."""
        try:
            yield
        except GeotuneError as error:
            if not self.keep:
                raise
            self.found.append(Issue("error", "files", str(error), file, scene))

    @property
    def scenes(self) -> list[str]:
        """The scenes that cannot be used, each once."""
        return list(dict.fromkeys(one.scene for one in self.found if one.scene is not None))

    def without(self, total: int) -> list[str]:
        """What is left out of `total` samples, in words.

        Raises `GeotuneError` for a fault that is not one sample's, or where they are too many.
        """
        for one in self.found:
            if one.scene is None:
                raise GeotuneError(one.text)
        left_out = self.scenes
        if len(left_out) > SKIPPED_SHARE * total:
            raise GeotuneError(
                f"{self.found[0].text} (train.skip_bad_samples: {len(left_out)} of {total} samples "
                f"are bad: {join_some(left_out)}; at most {SKIPPED_SHARE:.0%} are skipped: mend them)"
            )
        return [one.text for one in self.found]


@contextmanager
def location(where: str) -> Iterator[None]:
    """A `GeotuneError` inside also says where it was met: in which row, of which list."""
    try:
        yield
    except GeotuneError as error:
        raise GeotuneError(f"{where}: {error}") from error


def raise_on_error(findings: Iterable[Issue]) -> None:
    """Raise the first error as `GeotuneError`, and say how many more there are."""
    errors = [one.text for one in findings if one.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more: geotune check lists them)" if errors[1:] else ""
        raise GeotuneError(errors[0] + more)
