"""Published data sets that geotune knows by name, recognised by their files and classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geotune.api.init.classes import Request, require_task
from geotune.api.init.draft import Draft
from geotune.api.init.layout import Layout
from geotune.data.published.published_images import PublishedImage, find_images
from geotune.data.published.published_scenes import open_published_scenes
from geotune.data.scenes.find import first_file
from geotune.datasets.base import DatasetInfo
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.errors import GeotuneError


def published_layout(folder: Path) -> Layout | None:
    """The layout of a published data set in a folder, or whose folder of images this is.

    None for other data, and for folders that several data sets share unless the folder has the
    name of one.
    """
    found = [
        layout
        for name in DATASETS
        if (layout := _layout(get_dataset_info(name), folder)) is not None
    ]
    if len(found) > 1:
        path = folder.resolve().name.lower()
        found = [each for each in found if str(each.data["name"]).rpartition("2_")[2] in path]
    return found[0] if len(found) == 1 else None


def set_published(draft: Draft, request: Request) -> tuple[str, list[str]]:
    """Set the task. Returns the data set's title and its bands."""
    info = get_dataset_info(draft.values["data"]["name"])
    draft.set("task.kind", require_task(request, f"those of {info.name}", info.task))
    if info.task == "detect":
        draft.set("task.boxes", "oriented" if info.oriented else "horizontal")
    if request.classes:
        draft.set("task.classes", [*request.classes])
    return f"{info.title} (licence {info.licence}; {info.paper})", list(info.bands)


def _layout(info: DatasetInfo, folder: Path) -> Layout | None:
    inside = any(pattern.partition("/")[0] == folder.resolve().name for pattern in info.images)
    for root in (folder, folder.absolute().parent)[: 2 if inside else 1]:
        for published in (True, False) if info.splits else (False,):
            try:
                images = find_images(info, root, bands=info.bands, published=published)
                if _is_it(info, root, images, published):
                    return _named(info, root, images, published)
            except GeotuneError:  # other data, or without its lists of splits
                continue
    return None


def _is_it(
    info: DatasetInfo, root: Path, images: Sequence[PublishedImage], published: bool
) -> bool:
    """Whether the classes are those of the data set, as the folders alone may be of other data."""
    if info.task == "classify":
        return {image.fields.get("label", "") for image in images} <= {*info.classes}
    if info.task == "detect":  # raises if labels have other classes
        open_published_scenes(info, root, classes=info.classes, published=published)
    return True


def _named(
    info: DatasetInfo, root: Path, images: Sequence[PublishedImage], published: bool
) -> Layout:
    comment = f"known by this name: bands, classes and splits are published. {info.note}".strip()
    comments = {"data.name": comment}
    if not published and info.splits:
        comments["data.root"] = (
            "the files of the published split are missing or incomplete, so another one was made"
        )
    return Layout(
        {"kind": "named", "name": info.name, "root": str(root)},
        [first_file(image.files) for image in images],
        {},
        "published",
        comments=comments,
        published_split=published,
    )
