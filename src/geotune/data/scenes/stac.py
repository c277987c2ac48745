"""Scenes listed in a local STAC file: an item, a collection, a catalogue, or a list of items.

A band's image is the asset with its name, or the one whose `bands` or `eo:bands` lists only that
band; otherwise the asset with role `data`, which holds all bands. The label file is the asset with
role `labels`. Item properties become attributes of the scene; `split` is its split. Nothing is
downloaded: links to a server raise an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.data.issues import ErrorCollector, prefix_errors
from geotune.data.scenes.entry import SceneEntry, parse_split
from geotune.data.scenes.find import RASTER_SUFFIXES, readable_path
from geotune.errors import GeotuneError
from geotune.utils.remote import to_path

if TYPE_CHECKING:
    from pystac import Asset, Item, StacIO

LABEL_ROLES = ("label", "labels", "mask")
"""Roles and names of the asset with labels."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What pystac raises for a damaged file, besides its own errors."""


def read_stac(
    path: Path, wanted_bands: Sequence[str] | None, errors: ErrorCollector
) -> Iterator[tuple[str, str, SceneEntry]]:
    """Yield the location of each item for messages, its id, and its entry.

    Raises `GeotuneError` for a file that is not STAC, and for items without local images.
    """
    for item in _items(path):
        where = f"{path}: item {item.id}"
        with errors.catch(item.id, path):
            attributes = {
                key: str(value) for key, value in item.properties.items() if value is not None
            }
            if item.collection_id:
                attributes["collection"] = item.collection_id
            labels = [
                _file(asset, where) for key, asset in item.assets.items() if _is_labels(key, asset)
            ]
            entry = SceneEntry(
                _images(item, wanted_bands, where),
                labels[0] if labels else None,
                parse_split(attributes.get("split", ""), where),
                item.datetime.date() if item.datetime else None,
                attributes,
            )
            yield f"item {item.id}", item.id, entry


def _items(path: Path) -> Iterator[Item]:
    try:
        import pystac
        from pystac.errors import STACError, STACTypeError
    except ImportError as error:
        raise GeotuneError(
            f"{path}: reading STAC requires pystac: pip install 'geotune[lists]'",
            code="dependency-missing",
            file=path,
        ) from error
    stac_io = _local_stac_io()
    try:
        values = stac_io.read_json(str(path))
        # the root and self links of a copied catalogue still refer to its server
        values["links"] = [link for link in values["links"] if link["rel"] in ("item", "child")]
        stac: Any = pystac.read_dict(values, href=str(path), stac_io=stac_io)
        stac._stac_io = stac_io
    except (STACError, STACTypeError, *UNREADABLE) as error:
        stac = _feature_collection(path, error)
    if isinstance(stac, pystac.Item):
        yield stac
        return
    try:
        yield from stac.get_items(recursive=True) if isinstance(stac, pystac.Catalog) else stac
    except (STACError, STACTypeError, *UNREADABLE) as error:
        if isinstance(error.__cause__, GeotuneError):
            with prefix_errors(str(path)):
                raise error.__cause__ from error
        reason = "it links to itself" if isinstance(error, RecursionError) else error
        raise GeotuneError(
            f"{path}: an item cannot be read ({reason}); write it again",
            code="file-unreadable",
            file=path,
        ) from error


def _local_stac_io() -> StacIO:
    """A reader of local STAC files that refuses any other."""
    from pystac.stac_io import DefaultStacIO

    class LocalStacIO(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            return to_path(readable_path(href)).read_text(encoding="utf-8")

    return LocalStacIO()


def _feature_collection(path: Path, cause: Exception) -> Any:
    """The items of a FeatureCollection, which STAC searches return."""
    import pystac
    from pystac.errors import STACError, STACTypeError

    try:
        values = _local_stac_io().read_json(str(path))
        items = [pystac.Item.from_dict(feature) for feature in values["features"]]
    except (STACError, STACTypeError, *UNREADABLE) as error:
        raise GeotuneError(
            f"{path}: not a STAC item, collection or catalogue ({cause}); expected one, or a list "
            "of items",
            code="file-unreadable",
            file=path,
        ) from error
    for item in items:
        item.set_self_href(str(path.absolute()))
    return items


def _images(item: Item, wanted_bands: Sequence[str] | None, where: str) -> Path | dict[str, Path]:
    """The file of each wanted band, or the one with all bands."""
    images = {key: asset for key, asset in item.assets.items() if _is_image(key, asset)}
    by_band: dict[str, Asset] = {}
    for key, asset in images.items():
        names = _band_names(asset)
        if len(names) <= 1:
            by_band.setdefault(names[0] if names else key, asset)
            by_band.setdefault(key, asset)
    wanted = list(wanted_bands or ())
    if wanted and all(band in by_band for band in wanted):
        return {band: _file(by_band[band], where) for band in wanted}
    multiband = [asset for key, asset in images.items() if asset.has_role("data") or key == "data"]
    multiband = multiband or list(images.values())
    if len(multiband) == 1:
        return _file(multiband[0], where)
    raise GeotuneError(
        f"{where}: has the images {', '.join(images) or 'none'}; select some with backbone.bands"
        + (f", which is {', '.join(wanted)}" if wanted else ""),
        code="band-missing",
        key="backbone.bands",
    )


def _band_names(asset: Asset) -> list[str]:
    bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    return [str(band["name"]) for band in bands if isinstance(band, dict) and "name" in band]


def _is_labels(key: str, asset: Asset) -> bool:
    return key in LABEL_ROLES or any(role in LABEL_ROLES for role in asset.roles or ())


def _is_image(key: str, asset: Asset) -> bool:
    preview = {"thumbnail", "overview", "metadata"} & {key, *(asset.roles or ())}
    media_type = asset.media_type or ""
    pixels = media_type.startswith("image/") or Path(asset.href).suffix.lower() in RASTER_SUFFIXES
    return pixels and not preview and not _is_labels(key, asset)


def _file(asset: Asset, where: str) -> Path:
    with prefix_errors(where):
        path = to_path(readable_path(str(asset.get_absolute_href() or asset.href)))
    if not path.is_file():
        raise GeotuneError(
            f"{where}: file {path} not found; correct the item", code="file-missing", file=path
        )
    return path
