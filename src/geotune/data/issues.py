"""Problems found in data, and whether reading stops at the first error."""

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
"""Errors prevent training, warnings are unexpected, notes are information."""

MAX_SKIPPED = 0.05
"""Maximum share of the samples that `train.skip_bad_samples` skips."""


@dataclass(frozen=True)
class Issue:
    """A problem in the data, or information about it.

    Attributes:
        check: the check that found it, such as `files` or `overlap`.
        text: names the file or key, what was found, what was expected, and what to do.
        file: the first file that it is about, if any.
        scene: the scene that it makes unusable, if exactly one.
        code: of an error, one of `errors.ERROR_CODES`.
        key: the recipe key that it is about, if any.
    """

    severity: Severity
    check: str
    text: str
    file: Path | None = None
    scene: str | None = None
    code: str | None = None
    key: str | None = None

    def as_error(self, more: str = "") -> GeotuneError:
        """The issue as an error; `more` is appended to its text."""
        return GeotuneError(
            self.text + more, code=self.code or "data-errors", key=self.key, file=self.file
        )


@dataclass
class ErrorCollector:
    """Raises errors about unusable files at once, or collects them.

    Attributes:
        keep: collect errors and continue with the other files.
        issues: the collected errors, in order.
    """

    keep: bool = False
    issues: list[Issue] = field(default_factory=list)

    @contextmanager
    def catch(self, scene: str | None, file: Path) -> Iterator[None]:
        """Handle a `GeotuneError` inside as one about `scene`, or with None about all scenes."""
        try:
            yield
        except GeotuneError as error:
            if not self.keep:
                raise
            issue = Issue("error", "files", str(error), file, scene, error.code, error.key)
            self.issues.append(issue)

    def raise_collected(self) -> None:
        """Raise the first error as `CollectedError`, if there is one."""
        try:
            raise_on_error(self.issues)
        except GeotuneError as error:
            raise CollectedError(
                str(error), code=error.code, key=error.key, file=error.file
            ) from error

    @property
    def scenes(self) -> list[str]:
        """The unusable scenes, without repeats."""
        return list(dict.fromkeys(issue.scene for issue in self.issues if issue.scene is not None))

    def skip_unusable(self, total: int) -> list[str]:
        """The messages of the errors, to skip their samples out of `total`.

        Raises `GeotuneError` for an error that is not about a single sample, or too many of them.
        """
        for issue in self.issues:
            if issue.scene is None:
                raise issue.as_error()
        skipped = self.scenes
        if len(skipped) > MAX_SKIPPED * total:
            raise GeotuneError(
                f"{self.issues[0].text} (train.skip_bad_samples: {len(skipped)} of {total} samples "
                f"are unusable: {join_some(skipped)}; at most {MAX_SKIPPED:.0%} are skipped: fix "
                "them)",
                code="samples-skipped",
                key="train.skip_bad_samples",
                file=self.issues[0].file,
            )
        return [issue.text for issue in self.issues]


@contextmanager
def prefix_errors(where: str) -> Iterator[None]:
    """Prefix the message of a `GeotuneError` inside with its location, such as a row."""
    try:
        yield
    except GeotuneError as error:
        raise GeotuneError(
            f"{where}: {error}", code=error.code, key=error.key, file=error.file
        ) from error


class CollectedError(GeotuneError):
    """The first of errors that an `ErrorCollector` holds already."""


def raise_on_error(issues: Iterable[Issue]) -> None:
    """Raise the first error as `GeotuneError`, with the number of others."""
    errors = [issue for issue in issues if issue.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more: geotune check lists them)" if errors[1:] else ""
        raise errors[0].as_error(more)
