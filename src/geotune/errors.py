"""Errors that a user can fix, each with a stable code.

A code names the kind of problem, not the sentence: messages may improve from release to release,
codes stay. `docs/reference/errors.md` lists them; `geotune --json` prints them.
"""

from __future__ import annotations

from pathlib import Path

ERROR_CODES: dict[str, str] = {
    # --- recipe, overrides, suites ---
    "option-invalid": "an option of a command is missing or has an invalid value",
    "recipe-unreadable": "the recipe or suite cannot be read, or is not valid YAML",
    "recipe-override": "an override is not key=value, or does not fit the recipe",
    "recipe-invalid": "a key is unknown, missing, or has a value that is not allowed",
    "recipe-key-renamed": "a key has a new name",
    "terratorch-config": "a configuration of TerraTorch has a part that geotune cannot take over",
    # --- files and formats ---
    "file-missing": "a file or folder does not exist",
    "file-access": "the operating system refuses access to a file: rights, space, name or disk",
    "file-unreadable": "a file is damaged, truncated or in another format",
    "file-remote": "a path is on a server, which needs --remote, or holds a password",
    "remote-unavailable": "a server refuses a file, or cannot be reached",
    "dependency-missing": "an optional package is not installed, or too old",
    "column-missing": "a table lacks a column",
    "row-invalid": "a row, line or item of a file has an invalid or missing value",
    # --- rasters and bands ---
    "band-constant": "a band has one value in all training scenes",
    "band-missing": "an image lacks a band that was requested",
    "band-names": "bands are unnamed, or named twice or in another order",
    "bands-inconsistent": "images of one data set or scene have different bands",
    "dates-inconsistent": "modalities of one scene have different numbers of dates",
    "raster-dtype": "a raster has values of an unsupported type",
    "crs-missing": "a file has no coordinate reference system, but one is needed",
    "crs-incompatible": "coordinates cannot be transformed between two reference systems",
    "grid-mismatch": "two rasters differ in size, transform or coordinate reference system",
    "metadata-missing": "files do not state the date, location or resolution that is needed",
    # --- labels and annotations ---
    "labels-constant": "all training labels are equal",
    "labels-missing": "a scene has no label file, or a mask has no image",
    "labels-outside": "no label lies in the scene that it belongs to",
    "class-unknown": "labels hold a value or name that maps to no class",
    "class-values": "data.class_values does not map each value to one class",
    "class-count": "the number of classes, or of values per class, is not allowed",
    "class-empty": "no image has a class of the recipe",
    "class-field": "the class of vector labels is in none of their fields, or not in the given one",
    "geometry-type": "vector labels have geometries of another type",
    "label-value": "a label has an invalid value",
    "label-format-unknown": "the format of a label file is not recognised; set data.format",
    "label-image": "a label file lists no image of this name, or several",
    "image-size": "labels were made for an image of another size",
    "point-size": "data.point_size is needed but missing, or invalid",
    # --- scenes, splits, published data sets ---
    "split-changed": "training scenes came into the test split since the training",
    "split-empty": "a split has no scene or no sample",
    "scenes-missing": "a path, pattern or table yields no scene",
    "scene-duplicate": "two scenes have the same name, or one scene has two files",
    "pattern-invalid": "a path pattern has an unknown field or matches the wrong files",
    "split-name-unknown": "a split names a scene, group, fold or split that does not exist",
    "split-conflict": "a scene or group is assigned to two splits",
    "split-unassigned": "scenes are assigned to no split",
    "split-groups": "data.split.by yields no group or date for a scene, or too few groups",
    "split-buffer": "data.split.buffer is as wide as the blocks",
    "dataset-files": "files of a published data set are missing",
    "synthetic-options": "the options of synthetic scenes are invalid",
    "synthetic-folder": "the folder of synthetic scenes has other contents or cannot be created",
    # --- checks of the data ---
    "data-errors": "a check of the data found errors",
    "samples-skipped": "too many samples are unusable for train.skip_bad_samples",
    "pixels-invalid": "a raster has NaN or infinite pixels that are not nodata",
    "band-empty": "no training scene has valid pixels in a band",
    "window-too-small": "data.window is smaller than images that are labelled as a whole",
    "split-unlabelled": "a split has no labels",
    "images-empty": "the images of a split, which need no labels, have no pixel with data",
    "split-leakage": "two splits contain the same pixels or overlapping scenes",
    # --- backbones and their weights ---
    "normalization-missing": "the backbone has no published normalisation",
    "backbone-unknown": "no backbone has this name",
    "backbone-unusable": "a backbone cannot be built, or gives no usable feature maps",
    "backbone-option": "a backbone does not support an option, or this value of it",
    "backbone-code": "the Python file of a custom backbone fails or returns no backbone",
    "band-unknown": "a backbone does not know a band, its modality or its wavelength",
    "band-duplicate": "a band or modality is named twice, or none is named",
    "input-shape": "images or metadata given to a backbone have the wrong shape or are missing",
    "weights-unavailable": "pretrained weights are not published or cannot be downloaded",
    "weights-mismatch": "a checkpoint does not fit the model",
    # --- tuning methods ---
    "method-unsupported": "the method, or one of its options, does not support this backbone",
    "method-option-invalid": "an option does not fit the backbone or another option",
    "method-code": "the Python file of a custom method fails or has no such method",
    "method-layers-dead": "trainable layers cannot change the output",
    "backbone-already-adapted": "another method has already changed or frozen this backbone",
    "calibration-missing": "the encoder must be calibrated on images before training",
    "merge-unsupported": "the trained update cannot be folded into the backbone's weights",
    # --- decoders, detectors, tasks, metrics, boxes ---
    "box-type-unsupported": "this operation does not support this type of boxes",
    "boxes-invalid": "boxes, or their scores or classes, have the wrong shape",
    "boxes-not-finite": "boxes or scores contain NaN or infinity",
    "pixel-size-missing": "the pixel size in metres is needed but unknown",
    # --- feature cache, memory, planning ---
    "cache-too-large": "cached features exceed train.cache_limit or the free space",
    "out-of-memory": "memory ran out; in training even with the smallest possible micro-batch",
    "cache-not-possible": "the recipe does not allow a feature cache of this kind",
    "memory-budget": "no setting of the recipe fits the memory budget",
    # --- training, run folders, adapters ---
    "adapter-missing": "the folder has no adapter",
    "adapter-invalid": "an adapter file is damaged or is not one of geotune's",
    "adapter-version": "an adapter was written in another format version",
    "adapter-mismatch": "an adapter's files, or its tensors and its model, do not match",
    "adapter-base": "an adapter was trained on other backbone weights",
    "adapter-code": "an adapter names a Python file as backbone or method; it must be confirmed",
    "adapter-merged": "the method was merged into the backbone, so there is no adapter to save",
    "teacher-mismatch": "the teacher of a distillation has another task, other classes or data",
    "student-too-large": "the student of a distillation has more parameters than its teacher",
    "settings-incompatible": "training options of the recipe exclude each other",
    "loss-not-finite": "the training loss became NaN or infinite",
    "folder-not-owned": "a folder holds files that geotune did not write",
    "run-exists": "the run folder holds a run of another recipe",
    "run-incomplete": "the run lacks a result; run the command that writes it first",
    "run-not-continued": "a run cannot be continued or finished as requested",
    "federation-message": "a message between a server and its sites has no adapter",
    "federation-site": "a site of a federated training failed, is missing or names no recipe",
    "process-lost": "another process of one training ended before it was done",
    "run-not-shared": "the machines of one training do not share the run folder",
    "checkpoint-invalid": "the checkpoints of a run are damaged",
    "run-in-use": "another process uses the run folder",
    "tracker-failed": "an experiment tracker of train.loggers cannot be used",
    "device-missing": "the requested accelerator does not exist on this machine",
    # --- the hub ---
    "hub-name": "the name of a repository on the hub is malformed, or a local folder is needed",
    "hub-unavailable": "the hub cannot be reached, or answers with an error",
    "hub-not-found": "the hub has no repository or revision of this name, or it is private",
    "hub-unauthorized": "the hub does not let this account read or write the repository",
    "hub-invalid": "a repository lacks a file of geotune, or a file differs from its manifest",
    "hub-exists": "the repository has files already; --overwrite replaces them",
    # --- prediction and reports ---
    "output-exists": "a file that would be written exists",
    "output-not-writable": "a file or folder cannot be written",
    "output-shape": "the model's output has another shape than the task needs",
    "output-not-finite": "the model's output contains NaN or infinity",
    "image-too-large": "an image is larger than the window of the model",
    "array-shape": "an array has another shape than the model expects",
    "ensemble-mismatch": "a run cannot be averaged with another: it has another task or bands",
    "runs-mismatch": "runs cannot be mapped together: they read the images differently",
    "export-unsupported": "the format cannot hold the model, or not in the requested form",
    "export-inaccurate": "an exported file predicts something else than the run",
    "map-exists": "the output folder of geotune map holds another map, or other files",
    "map-incomplete": "tiles of a map are missing, so that its scenes cannot be written",
    "worker-lost": "worker processes of geotune map end again and again",
    "option-not-applicable": "an option of the command does not apply to this run",
    "port-unavailable": "another program uses the port, or it may not be used",
    "view-empty": "a folder has nothing that a map could show",
    # --- comparisons ---
    "suite-invalid": "a suite names an unknown axis, label, method or metric, or has no run",
    "suite-run-duplicate": "two runs of a suite would write to one folder",
    "suite-results-missing": "no result of the suite, or no selected published result, exists",
    "suite-units": "the test split has too few independent units",
    "suite-folds": "folds of a cross-validation share test scenes",
    "suite-results-changed": "finished runs of a suite had another recipe than the suite has now",
    "suite-code-mixed": "the runs of a suite come from different versions of the code",
    "search-failed": "no trial of a search gave a result",
    "cluster-unreachable": "the Ray cluster cannot be reached",
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
        self, message: str, *, code: str, key: str | None = None, file: str | Path | None = None
    ) -> None:
        assert code in ERROR_CODES, f"errors.py has no code {code!r}"
        super().__init__(message)
        self.code = code
        self.key = key
        self.file = None if file is None else Path(file)

    def __reduce__(self) -> tuple[object, ...]:
        # worker processes send errors to their parent
        return _rebuild, (type(self), str(self), self.code, self.key, self.file)


class OutputError(GeotuneError, OSError):
    """A file or folder that cannot be written.

    Attributes:
        strerror: the reason, in the words of the operating system.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "output-not-writable",
        key: str | None = None,
        file: str | Path | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message, code=code, key=key, file=file)
        self.strerror = reason


class RecipeError(GeotuneError):
    """A recipe, an override or a suite that cannot be used; the message names the key."""


def check_exists(path: Path, what: str, key: str, *, folder: bool = False) -> None:
    """Raise `GeotuneError` if there is no such file (or folder), which `key` names."""
    if not (path.is_dir() if folder else path.is_file()):
        raise GeotuneError(
            f"{path}: {what} not found; check {key}", code="file-missing", key=key, file=path
        )


def _rebuild(
    kind: type[GeotuneError], message: str, code: str, key: str | None, file: Path | None
) -> GeotuneError:
    return kind(message, code=code, key=key, file=file)
