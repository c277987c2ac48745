"""Scenes of a STAC catalogue on the disk: an item, a collection, a catalogue, or items in a file.

The asset of a band is the one of its name, or the one that says in `bands` or `eo:bands` that it
holds that band alone; without such assets the one of role `data` that holds all. The asset of role
`labels` is the label file. What an item's properties say can part the data; `split` names a part.
Nothing is fetched: a link that leads to a server is refused by its address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.data.issues import ErrorCollector, location
from geotune.data.scenes.find import RASTER_SUFFIXES, local_path
from geotune.data.scenes.table import SceneEntry, parse_split
from geotune.errors import GeotuneError

if TYPE_CHECKING:
    from pystac import Asset, Item, StacIO

LABELS = ("label", "labels", "mask")
"""Roles and names of the asset with labels."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What pystac lets through, besides its own errors, of a file that is damaged."""


def read_stac(
    path: Path, wanted_bands: Sequence[str] | None, faults: ErrorCollector
) -> Iterator[tuple[str, str, SceneEntry]]:
    """Of each item its place in words, its name and what it says.

    Raises `GeotuneError` for a file that is no STAC, and for items whose images are not files.
    """
    for item in _items(path):
        place = f"item {item.id}"
        with faults.catch(item.id, path):
            where = f"{path}: {place}"
            said = {key: str(value) for key, value in item.properties.items() if value is not None}
            if item.collection_id:
                said["collection"] = item.collection_id
            labels = [
                _file(asset, where) for key, asset in item.assets.items() if _labels(key, asset)
            ]
            listed = SceneEntry(
                _images(item, wanted_bands, where),
                labels[0] if labels else None,
                parse_split(said.get("split", ""), where),
                item.datetime.date() if item.datetime else None,
                said,
            )
            yield place, item.id, listed


def _items(path: Path) -> Iterator[Item]:
    try:
        import pystac
        from pystac.errors import STACError, STACTypeError
    except ImportError as error:
        raise GeotuneError(
            f"{path}: reading STAC needs pystac: pip install 'geotune[lists]'"
        ) from error
    files = _files()
    try:
        values = files.read_json(str(path))
        # a catalogue that was copied still names its root and itself, on the server it came from
        values["links"] = [each for each in values["links"] if each["rel"] in ("item", "child")]
        found: Any = pystac.read_dict(values, href=str(path), stac_io=files)
        found._stac_io = files
    except (STACError, STACTypeError, *UNREADABLE) as error:
        found = _collected(path, error)
    if isinstance(found, pystac.Item):
        yield found
        return
    try:
        yield from found.get_items(recursive=True) if isinstance(found, pystac.Catalog) else found
    except (STACError, STACTypeError, *UNREADABLE) as error:
        if isinstance(error.__cause__, GeotuneError):
            raise GeotuneError(f"{path}: {error.__cause__}") from error
        reason = "it leads to itself" if isinstance(error, RecursionError) else error
        raise GeotuneError(f"{path}: an item cannot be read ({reason}); write it anew") from error


def _files() -> StacIO:
    """What reads STAC from the disk, and from nowhere else."""
    from pystac.stac_io import DefaultStacIO

    class Files(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            return Path(local_path(href)).read_text(encoding="utf-8")

    return Files()


def _collected(path: Path, fault: Exception) -> Any:
    """The items of a FeatureCollection, as a search gives them."""
    import pystac
    from pystac.errors import STACError, STACTypeError

    try:
        values = _files().read_json(str(path))
        items = [pystac.Item.from_dict(each) for each in values["features"]]
    except (STACError, STACTypeError, *UNREADABLE) as error:
        raise GeotuneError(
            f"{path}: is no STAC item, collection or catalogue ({fault}); expected one, or a list "
            "of items"
        ) from error
    for item in items:
        item.set_self_href(str(path.absolute()))
    return items


def _images(item: Item, wanted_bands: Sequence[str] | None, where: str) -> Path | dict[str, Path]:
    images = {key: asset for key, asset in item.assets.items() if _image(key, asset)}
    by_band: dict[str, Asset] = {}
    for key, asset in images.items():
        held = _bands(asset)
        if len(held) <= 1:
            by_band.setdefault(held[0] if held else key, asset)
            by_band.setdefault(key, asset)
    wanted = list(wanted_bands or ())
    if wanted and all(band in by_band for band in wanted):
        return {band: _file(by_band[band], where) for band in wanted}
    whole = [asset for key, asset in images.items() if asset.has_role("data") or key == "data"]
    whole = whole or list(images.values())
    if len(whole) == 1:
        return _file(whole[0], where)
    raise GeotuneError(
        f"{where}: has the images {', '.join(images) or 'none'}; name those to read by "
        "backbone.bands" + (f", found {', '.join(wanted)}" if wanted else "")
    )


def _bands(asset: Asset) -> list[str]:
    said = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    return [str(band["name"]) for band in said if isinstance(band, dict) and "name" in band]


def _labels(key: str, asset: Asset) -> bool:
    return key in LABELS or any(role in LABELS for role in asset.roles or ())


def _image(key: str, asset: Asset) -> bool:
    shown = {"thumbnail", "overview", "metadata"} & {key, *(asset.roles or ())}
    kind = asset.media_type or ""
    pixels = kind.startswith("image/") or Path(asset.href).suffix.lower() in RASTER_SUFFIXES
    return pixels and not shown and not _labels(key, asset)


def _file(asset: Asset, where: str) -> Path:
    with location(where):
        path = Path(local_path(str(asset.get_absolute_href() or asset.href)))
    if not path.is_file():
        raise GeotuneError(f"{where}: there is no file {path}; mend the item")
    return path
