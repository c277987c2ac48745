"""Open what `geotune view` is asked to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geotune.data.scenes.find import find_files
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir
from geotune.utils.paths import is_system_file
from geotune.view.content import FolderContent, MapContent
from geotune.view.folder import folder_content
from geotune.view.run_content import run_content

PLAN = "plan.json"
"""Of `geotune map`."""


def open_content(
    paths: Sequence[Path], predictions: Path, *, scenes: Sequence[str] = ()
) -> MapContent:
    """The scenes of folders of predictions and of runs, joined by name.

    Args:
        paths: at least one; a map of several runs stands for the map of each.
        predictions: an existing folder for predictions of runs.
        scenes: patterns of the images of predictions, if the folders do not state them.

    Raises `GeotuneError` for a folder that is missing or has nothing to show.
    """
    images = find_files(list(scenes)) if scenes else {}
    folders: list[FolderContent] = []
    paths = [each for path in paths for each in _maps_of_runs(path) or [path]]
    for path in paths:
        if not path.is_dir():
            found = "a file" if path.exists() else "nothing"
            raise GeotuneError(
                f"{path}: found {found}, expected a folder that geotune predict wrote, or a run "
                "folder; check the path",
                code="file-missing",
                file=path,
            )
        if RunDir(path).recipe.exists():
            folders.append(run_content(path, predictions))
        else:
            mapped = path / "scenes"  # of geotune map, beside its plan
            of_map = (path / PLAN).exists() and mapped.is_dir()
            content = folder_content(mapped if of_map else path, images)
            content.title = path.resolve().name
            folders.append(content)
    titles = [folder.title for folder in folders]
    for path, folder in zip(paths, folders, strict=True):
        if titles.count(folder.title) > 1:
            folder.title = str(path)
    return MapContent(folders)


def _maps_of_runs(path: Path) -> list[Path]:
    """The folders of a map with several runs, which are all that it holds; else empty."""
    inside = list(path.iterdir()) if path.is_dir() else []
    if any(each.is_file() and not is_system_file(Path(each.name)) for each in inside):
        return []
    return sorted(each for each in inside if (each / PLAN).exists())
