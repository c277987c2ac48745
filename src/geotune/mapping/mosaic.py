"""One map of all scenes without a copy of their pixels: a VRT, and a GDAL tile index (GTI).

A VRT has one reference system: that of most pixels. Scenes in others enter it through a warped VRT
of their own. GDAL's GTI driver (3.9) warps on the fly, and stays fast with any number of scenes.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from geotune.data.raster.crs import transformer
from geotune.errors import GeotuneError
from geotune.inference.geopackage import write_features
from geotune.mapping.store import Store
from geotune.utils.colors import palette

VRT, GTI, WARPED = "mosaic.vrt", "mosaic.gti.gpkg", "warped"
_TYPES = {"uint8": "Byte", "float32": "Float32"}


@dataclass(frozen=True)
class SceneMap:
    """The map of a scene in the output folder.

    Attributes:
        scene: its name.
        file: such as `scenes/a_classes.tif`.
        shape: (H, W) in pixels.
        crs: reference system.
        transform: from pixels (column, row) to coordinates.
    """

    scene: str
    file: str
    shape: tuple[int, int]
    crs: CRS
    transform: Affine

    @property
    def upright(self) -> bool:
        """Whether its rows run from west to east and its columns from north to south."""
        t = self.transform
        return bool(t.b == t.d == 0 and t.a > 0 > t.e)

    def extent_in(self, crs: CRS) -> tuple[float, float, float, float] | None:
        """West, south, east and north in a reference system; None if that cannot express them."""
        height, width = self.shape
        steps = np.linspace(0, 1, 11)
        edge = [(x, y) for x in steps for y in (0, 1)] + [(x, y) for x in (0, 1) for y in steps]
        points = np.array([self.transform @ (x * width, y * height) for x, y in edge]).T
        if self.crs != crs:
            try:
                points = np.array(transformer(self.crs, crs).transform(*points))
            except GeotuneError:
                return None
        if not np.isfinite(points).all():
            return None
        (west, south), (east, north) = points.min(axis=1).tolist(), points.max(axis=1).tolist()
        return west, south, east, north


def write_mosaics(
    store: Store, maps: Sequence[SceneMap], *, dtype: str, nodata: float, classes: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Write `mosaic.vrt` and `mosaic.gti.gpkg`.

    Args:
        store: the output folder.
        maps: of the scenes; the later ones lie on top.
        dtype: of the pixels, uint8 or float32.
        nodata: value of the pixels without data.
        classes: of a class map, else empty.

    Returns the names of the files; there are none without a georeferenced scene. Returns also the
    scenes that are left out, as there is no place for them in the mosaic's reference system.
    """
    if not maps:
        return [], []
    areas: Counter[CRS] = Counter()
    for each in maps:
        areas[each.crs] += each.shape[0] * each.shape[1]
    crs = max(areas, key=lambda key: areas[key])
    extents = {each: extent for each in maps if (extent := each.extent_in(crs)) is not None}
    same = [
        each if each.crs == crs and each.upright else _warped(store, each, crs) for each in extents
    ]
    placed = [each for each in same if each is not None]
    names = []
    if placed:
        store.write(VRT, _vrt(placed, crs, dtype, nodata, classes))
        names.append(VRT)
    size = min((min(p.transform.a, -p.transform.e) for p in placed), default=0.0)
    store.write(GTI, _tile_index(extents, crs, size))
    return [*names, GTI], [each.scene for each in maps if each not in extents]


def _warped(store: Store, one: SceneMap, crs: CRS) -> SceneMap | None:
    """A scene in another reference system, through a VRT; None on an object store."""
    if store.local is None:
        return None
    name = f"{WARPED}/{Path(one.file).stem}.vrt"
    with (
        rasterio.open(store.local / one.file) as file,
        WarpedVRT(file, crs=crs) as warped,
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "warped.vrt"
        rasterio.shutil.copy(warped, path, driver="VRT")
        shape, transform = warped.shape, warped.transform
        root = Xml.fromstring(path.read_bytes())
    for source in root.iter("SourceDataset"):
        source.text, source.attrib["relativeToVRT"] = f"../{one.file}", "1"
    store.write(name, Xml.tostring(root))
    return replace(one, file=name, shape=shape, crs=crs, transform=transform)


def _vrt(
    maps: Sequence[SceneMap], crs: CRS, dtype: str, nodata: float, classes: Sequence[str]
) -> bytes:
    x_size = min(each.transform.a for each in maps)
    y_size = min(-each.transform.e for each in maps)
    west = min(each.transform.c for each in maps)
    north = max(each.transform.f for each in maps)
    east = max(each.transform.c + each.transform.a * each.shape[1] for each in maps)
    south = min(each.transform.f + each.transform.e * each.shape[0] for each in maps)
    width = max(1, math.ceil((east - west) / x_size - 1e-6))
    height = max(1, math.ceil((north - south) / y_size - 1e-6))
    root = Xml.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    Xml.SubElement(root, "SRS").text = crs.to_wkt()
    numbers = (west, x_size, 0.0, north, 0.0, -y_size)
    Xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, numbers))
    band = Xml.SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band="1")
    text = "nan" if math.isnan(nodata) else f"{nodata:g}"
    Xml.SubElement(band, "NoDataValue").text = text
    if classes:
        Xml.SubElement(band, "ColorInterp").text = "Palette"
        table = Xml.SubElement(band, "ColorTable")
        for red, green, blue in palette(classes):
            Xml.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
        names = Xml.SubElement(band, "CategoryNames")
        for name in classes:
            Xml.SubElement(names, "Category").text = name
    for each in maps:
        # a source without data must not hide another one
        source = Xml.SubElement(band, "ComplexSource")
        Xml.SubElement(source, "SourceFilename", relativeToVRT="1").text = each.file
        Xml.SubElement(source, "SourceBand").text = "1"
        rows, columns = map(str, each.shape)
        Xml.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=columns, ySize=rows)
        place = {
            "xOff": (each.transform.c - west) / x_size,
            "yOff": (north - each.transform.f) / y_size,
            "xSize": each.shape[1] * each.transform.a / x_size,
            "ySize": each.shape[0] * -each.transform.e / y_size,
        }
        Xml.SubElement(source, "DstRect", {key: repr(value) for key, value in place.items()})
        Xml.SubElement(source, "NODATA").text = text
    Xml.indent(root)
    return Xml.tostring(root)


def _tile_index(
    maps: Mapping[SceneMap, tuple[float, float, float, float]], crs: CRS, size: float
) -> bytes:
    """A GeoPackage with the outline and the file of each scene."""
    outlines = [shapely.box(*extent) for extent in maps.values()]
    systems = []
    for each in maps:
        authority = each.crs.to_authority()
        systems.append(":".join(authority) if authority else each.crs.to_wkt())
    metadata = {"RESX": repr(size), "RESY": repr(size)} if size else {}
    fields: Mapping[str, Any] = {
        "location": np.array([each.file for each in maps], dtype=object),
        "scene": np.array([each.scene for each in maps], dtype=object),
        "crs": np.array(systems, dtype=object),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GTI
        write_features(
            path, "index", np.array(outlines, dtype=object), fields,
            geometry_type="Polygon", crs=crs, append=False, layer_metadata=metadata,
        )  # fmt: skip
        return path.read_bytes()
