"""QGIS styles (`.qml`) and projects (`.qgs`) of predictions, in the XML format of QGIS 3.

A style has the name of its file, so that QGIS applies it when the file is opened. The project shows
image, map and objects of a scene together; its paths are relative.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as Xml

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import array_bounds

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.utils.colors import Color, css, is_background
from geotune.utils.rgb_bands import shown_bands

_VERSION = "3.22.0"
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
_SAMPLE = 64
"""Side of the nine windows of an image from which its contrast is computed."""

Geometry = Literal["Polygon", "Point"]


@dataclass(frozen=True)
class MapLayer:
    """A layer of a project.

    Attributes:
        path: the file; that of a prediction lies beside the project.
        title: shown in the list of layers.
        style: `<pipe>` of a raster, `<renderer-v2>` of vectors.
        geometry: of vectors; None for rasters.
        layer: name of the layer in a file of vectors.
        visible: whether it is drawn at first.
    """

    path: Path
    title: str
    style: Xml.Element
    geometry: Geometry | None = None
    layer: str = ""
    visible: bool = True


def write_qgis(
    folder: Path, out_dir: Path, name: str, source: RasterSource, layers: Sequence[MapLayer]
) -> None:
    """Write a style beside each file of `layers`, and the project `<name>.qgs` with the image.

    Args:
        folder: to write to.
        out_dir: where the files will finally lie; the path to the image starts there.
        name: of the scene.
        source: the image.
        layers: from top to bottom.
    """
    layers = [replace(layer, path=Path(layer.path.name)) for layer in layers]
    for layer in layers:
        write_style(folder / f"{layer.path.stem}.qml", layer.style, layer.geometry)
    try:
        image = Path(os.path.relpath(source.path.absolute(), out_dir.absolute()))
    except ValueError:  # another drive
        image = source.path.absolute()
    whole = [*layers, MapLayer(image, name, _image_style(source))]
    _save(_project(name, source, whole), folder / f"{name}.qgs")


def write_style(path: Path, style: Xml.Element, geometry: Geometry | None = None) -> None:
    """Write a `.qml` file; see `MapLayer`."""
    root = Xml.Element("qgis", version=_VERSION, styleCategories="Symbology")
    root.append(style)
    if geometry is not None:
        Xml.SubElement(root, "layerGeometryType").text = "0" if geometry == "Point" else "2"
    _save(root, path)


def class_map_style(classes: Sequence[str], colors: Sequence[Color]) -> Xml.Element:
    """The classes of a map in their colours; background is transparent."""
    renderer = _raster_renderer("paletted", band="1", opacity="0.7")
    palette = Xml.SubElement(renderer, "colorPalette")
    for index, (name, color) in enumerate(zip(classes, colors, strict=True)):
        alpha = "0" if index == 0 and is_background(name) else "255"
        Xml.SubElement(
            palette, "paletteEntry", value=str(index), label=name, color=css(color), alpha=alpha
        )
    return _pipe(renderer)


def value_style(low: float, high: float, *, band: int = 1) -> Xml.Element:
    """Values from `low` to `high` in colours from dark blue to yellow."""
    renderer = _raster_renderer(
        "singlebandpseudocolor",
        band=str(band),
        opacity="0.8",
        classificationMin=repr(low),
        classificationMax=repr(high),
    )
    shader = Xml.SubElement(
        Xml.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue=repr(low),
        maximumValue=repr(high),
    )
    for value, color in zip(np.linspace(low, high, len(_VIRIDIS)), _VIRIDIS, strict=True):
        number = repr(float(value))
        Xml.SubElement(shader, "item", value=number, label=f"{value:.4g}", color=color, alpha="255")
    return _pipe(renderer)


def class_style(
    field: str, classes: Sequence[str], colors: Sequence[Color], geometry: Geometry
) -> Xml.Element:
    """Outlines, or dots, in the colour of the class that `field` names."""
    renderer = Xml.Element("renderer-v2", type="categorizedSymbol", attr=f'"{field}"')
    categories, symbols = (
        Xml.SubElement(renderer, "categories"),
        Xml.SubElement(renderer, "symbols"),
    )
    for index, (name, color) in enumerate(zip(classes, colors, strict=True)):
        Xml.SubElement(
            categories, "category", value=name, label=name, symbol=str(index), render="true",
            type="string",
        )  # fmt: skip
        symbols.append(_symbol(str(index), color, geometry))
    return renderer


def outline_style(color: Color) -> Xml.Element:
    """Outlines in one colour."""
    renderer = Xml.Element("renderer-v2", type="singleSymbol")
    Xml.SubElement(renderer, "symbols").append(_symbol("0", color, "Polygon"))
    return renderer


def _symbol(name: str, color: Color, geometry: Geometry) -> Xml.Element:
    rgba = ",".join(map(str, (*color, 255)))
    options: Mapping[str, str]
    if geometry == "Polygon":
        kind, layer = "fill", "SimpleFill"
        options = {
            "style": "no", "outline_color": rgba, "outline_style": "solid",
            "outline_width": "0.46", "outline_width_unit": "MM",
        }  # fmt: skip
    else:
        kind, layer = "marker", "SimpleMarker"
        options = {
            "name": "circle", "color": rgba, "size": "2", "size_unit": "MM",
            "outline_color": "255,255,255,255", "outline_style": "solid",
            "outline_width": "0.2", "outline_width_unit": "MM",
        }  # fmt: skip
    symbol = Xml.Element("symbol", type=kind, name=name, alpha="1")
    values = Xml.SubElement(
        Xml.SubElement(
            symbol, "layer", {"class": layer, "enabled": "1", "pass": "0", "locked": "0"}
        ),
        "Option",
        type="Map",
    )
    for key, value in options.items():
        Xml.SubElement(values, "Option", name=key, type="QString", value=value)
    return symbol


def _raster_renderer(kind: str, **attributes: str) -> Xml.Element:
    fixed = {"type": kind, "alphaBand": "-1", "opacity": "1"}
    renderer = Xml.Element("rasterrenderer", fixed | attributes)
    Xml.SubElement(renderer, "rasterTransparency")
    return renderer


def _pipe(renderer: Xml.Element) -> Xml.Element:
    pipe = Xml.Element("pipe")
    pipe.append(renderer)
    return pipe


def _image_style(source: RasterSource) -> Xml.Element:
    """Colours of an image whose bands are in one file, else its first file in grey."""
    chosen = [source.band_files[band * source.num_dates] for band in shown_bands(source.bands)]
    if any(file.path != source.path for file in chosen):
        chosen = [source.band_files[0]]
    limits = _contrast(source, [source.band_files.index(f) // source.num_dates for f in chosen])
    if len(set(chosen)) == 1:
        renderer = _raster_renderer("singlebandgray", grayBand=str(chosen[0].index))
        renderer.append(_enhancement("contrastEnhancement", *limits[0]))
        return _pipe(renderer)
    red, green, blue = (str(file.index) for file in chosen)
    renderer = _raster_renderer("multibandcolor", redBand=red, greenBand=green, blueBand=blue)
    for color, (low, high) in zip(("red", "green", "blue"), limits, strict=True):
        renderer.append(_enhancement(f"{color}ContrastEnhancement", low, high))
    return _pipe(renderer)


def _enhancement(tag: str, low: float, high: float) -> Xml.Element:
    element = Xml.Element(tag)
    for name, text in (
        ("minValue", repr(low)),
        ("maxValue", repr(high)),
        ("algorithm", "StretchToMinimumMaximum"),
    ):
        Xml.SubElement(element, name).text = text
    return element


def _contrast(source: RasterSource, bands: Sequence[int]) -> list[tuple[float, float]]:
    """The 2nd and 98th percentile of bands, from windows all over the image."""
    selected = source.select([source.bands[band] for band in bands])
    samples = [selected.read(window) for window in _samples(source.shape)]
    values = [image.reshape(len(bands), -1) for image in samples]
    return [value_range(band) for band in np.concatenate(values, axis=1)]


def _samples(shape: tuple[int, int]) -> Iterator[Window]:
    rows, cols = ([max(0, size - _SAMPLE) * i // 2 for i in range(3)] for size in shape)
    for row in rows:
        for col in cols:
            yield Window(row, col, min(_SAMPLE, shape[0]), min(_SAMPLE, shape[1]))


def value_range(values: NDArray[np.floating]) -> tuple[float, float]:
    """The 2nd and 98th percentile of the finite values; 0 and 1 if they do not differ."""
    valid = values[np.isfinite(values)]
    low, high = np.percentile(valid, (2, 98)).tolist() if valid.size else (0.0, 0.0)
    if low == high and valid.size:
        low, high = float(valid.min()), float(valid.max())
    return (low, high) if low < high else (0.0, 1.0)


def _project(name: str, source: RasterSource, layers: Sequence[MapLayer]) -> Xml.Element:
    root = Xml.Element("qgis", projectname=name, version=_VERSION)
    Xml.SubElement(root, "title").text = name
    root.append(_reference("projectCrs", source.crs))
    tree = Xml.SubElement(root, "layer-tree-group")
    canvas = Xml.SubElement(root, "mapcanvas", name="theMapCanvas", annotationsVisible="1")
    west, south, east, north = array_bounds(*source.shape, source.transform)
    extent = Xml.SubElement(canvas, "extent")
    corners = {"xmin": min(west, east), "ymin": min(south, north)}
    corners |= {"xmax": max(west, east), "ymax": max(south, north)}
    for key, value in corners.items():
        Xml.SubElement(extent, key).text = repr(float(value))
    canvas.append(_reference("destinationsrs", source.crs))
    entries = Xml.SubElement(root, "projectlayers")
    for number, layer in enumerate(layers):
        layer_id = f"geotune_layer_{number}"  # QGIS replaces those of up to ten characters
        path = layer.path.as_posix()
        data = path if layer.path.is_absolute() or path.startswith("..") else f"./{path}"
        data += f"|layername={layer.layer}" if layer.layer else ""
        provider = "gdal" if layer.geometry is None else "ogr"
        Xml.SubElement(
            tree, "layer-tree-layer", id=layer_id, name=layer.title, source=data,
            providerKey=provider, checked="Qt::Checked" if layer.visible else "Qt::Unchecked",
            expanded="1" if layer.visible and number + 1 < len(layers) else "0",
        )  # fmt: skip
        kind = {"type": "raster"} if layer.geometry is None else {
            "type": "vector", "geometry": layer.geometry, "wkbType": layer.geometry,
        }  # fmt: skip
        entry = Xml.SubElement(entries, "maplayer", kind)
        for tag, text in (("id", layer_id), ("datasource", data), ("layername", layer.title)):
            Xml.SubElement(entry, tag).text = text
        entry.append(_reference("srs", source.crs))
        Xml.SubElement(entry, "provider", encoding="UTF-8").text = provider
        entry.append(layer.style)
    properties = Xml.SubElement(root, "properties")
    for group, key, type_, value in (
        ("Paths", "Absolute", "bool", "false"),
        ("SpatialRefSys", "ProjectionsEnabled", "int", str(int(source.crs is not None))),
    ):
        Xml.SubElement(Xml.SubElement(properties, group), key, type=type_).text = value
    return root


def _reference(tag: str, crs: CRS | None) -> Xml.Element:
    """A coordinate reference system as QGIS writes it; empty without one."""
    element = Xml.Element(tag)
    system = Xml.SubElement(element, "spatialrefsys", nativeFormat="Wkt")
    if crs is not None:
        Xml.SubElement(system, "wkt").text = crs.to_wkt()
        authority = crs.to_authority()
        Xml.SubElement(system, "authid").text = ":".join(authority) if authority else ""
    return element


def _save(root: Xml.Element, path: Path) -> None:
    Xml.indent(root)
    text = Xml.tostring(root, encoding="unicode")
    header = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    path.write_text(header + text + "\n", encoding="utf-8")
