"""Errors that a user can fix, each with a stable code.

A code names the kind of problem, not the sentence: messages may improve from release to release,
codes stay. `docs/errors.md` lists them; `geotune --json` prints them.
"""

from __future__ import annotations

from pathlib import Path

ERROR_CODES: dict[str, str] = {
    # --- recipe, overrides, suites ---
    "option-invalid": "an option of a command is missing or has an invalid value",
    "recipe-unreadable": "the recipe or suite cannot be read, or is not valid YAML",
    "recipe-invalid": "a key is unknown, missing, or has a value that is not allowed",
    "recipe-key-renamed": "a key has a new name",
    # --- files and formats ---
    # --- rasters and bands ---
    # --- labels and annotations ---
    # --- scenes, splits, published data sets ---
    "split-empty": "a split has no scene or no sample",
    # --- checks of the data ---
    # --- backbones and their weights ---
    # --- tuning methods ---
    # --- decoders, detectors, tasks, metrics, boxes ---
    "class-count-invalid": "the number of classes, or of values for each class, is wrong",
    "box-type-unsupported": "this operation does not support this type of boxes",
    "boxes-invalid": "boxes, or their scores or classes, have the wrong shape",
    "boxes-not-finite": "boxes or scores contain NaN or infinity",
    "pixel-size-missing": "the pixel size in metres is needed but unknown",
    # --- feature cache, memory, planning ---
    "cache-not-possible": "the recipe does not allow a feature cache of this kind",
    "memory-budget": "no setting of the recipe fits the memory budget",
    # --- training, run folders, adapters ---
    "run-in-use": "another process uses the run folder",
    "device-missing": "the requested accelerator does not exist on this machine",
    # --- prediction and reports ---
    "array-shape": "an array has another shape than the model expects",
    "option-not-applicable": "an option of the command does not apply to this run",
    # --- comparisons ---
    "unspecified": "no code is assigned yet",
}
"""What each code means, by code."""


class GeotuneError(Exception):
    """A problem that the user can fix.

    The message names the file, key or tensor, what was found, what was expected, and what to do.

    Attributes:
        code: what kind of problem it is, one of `ERROR_CODES`.
        key: the recipe key that it is about, such as `data.class_field`; None if there is none.
        file: the file that it is about; None if there is none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "unspecified",
        key: str | None = None,
        file: str | Path | None = None,
    ) -> None:
        assert code in ERROR_CODES, f"errors.py has no code {code!r}"
        super().__init__(message)
        self.code = code
        self.key = key
        self.file = None if file is None else Path(file)

    def __reduce__(self) -> tuple[object, ...]:
        # worker processes send errors to their parent
        return _rebuild, (type(self), str(self), self.code, self.key, self.file)


class RecipeError(GeotuneError):
    """A recipe, an override or a suite that cannot be used; the message names the key."""


def _rebuild(
    kind: type[GeotuneError], message: str, code: str, key: str | None, file: Path | None
) -> GeotuneError:
    return kind(message, code=code, key=key, file=file)
