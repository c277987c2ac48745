"""Files that are georeferenced by ground control points only, warped by them to a grid.

As gdalwarp does by default, polynomials are fitted to the points (of the first order, of the second
from ten points on), here in the CRS of the grid. At least three are needed.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine, GCPTransformer

from geotune.data.raster.crs import bounds, transformer
from geotune.data.raster.longitude_axis import longitude_axis

RESAMPLING = {Resampling.nearest: "NearestNeighbour", Resampling.bilinear: "Bilinear"}
"""Names in GDAL's XML."""


MIN_POINTS = 3


class ControlPoints(NamedTuple):
    """Where points of a file lie.

    Attributes:
        crs: of their coordinates.
        points: row, column, x and y of each.
    """

    crs: CRS
    points: tuple[tuple[float, float, float, float], ...]

    def in_crs(self, crs: CRS, near: float | None = None) -> list[GroundControlPoint]:
        """The points in another CRS, in the turn of x that is nearest to `near`."""
        rows, cols, xs, ys = np.array(self.points).T
        if crs != self.crs:
            xs, ys = transformer(self.crs, crs).transform(xs, ys)
        axis = longitude_axis(crs)
        if axis is not None:
            xs = xs + axis.nearest_turn(xs, xs[0])
            xs = xs + (0 if near is None else axis.nearest_turn(xs.mean(), near))
        values = np.stack([rows, cols, xs, ys], axis=1).tolist()
        return [GroundControlPoint(*value, z=0.0) for value in values]


def control_points(handle: DatasetReader) -> ControlPoints | None:
    """The ground control points of a file without other georeference."""
    if handle.crs is not None or handle.transform != Affine.identity():
        return None
    points, crs = handle.gcps
    if crs is None or not points:
        return None
    return ControlPoints(crs, tuple((p.row, p.col, p.x, p.y) for p in points))


@functools.lru_cache(maxsize=64)
def on_grid_points(
    control: ControlPoints, crs: CRS, transform: Affine, shape: tuple[int, int]
) -> list[GroundControlPoint]:
    """The control points in the coordinates of a grid."""
    west, _, east, _ = bounds(transform, shape)
    return control.in_crs(crs, (west + east) / 2)


def to_coordinates(
    points: list[GroundControlPoint], pixels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coordinates (N, 2) of columns and rows (N, 2) of the file."""
    with GCPTransformer(points) as fitted:
        xs, ys = fitted.xy(pixels[:, 1], pixels[:, 0], offset="ul")
    return np.stack([xs, ys], axis=1)


def open_warped_by_points(
    source: DatasetReader,
    points: list[GroundControlPoint],
    grid: tuple[CRS, Affine, tuple[int, int]],
    options: dict[str, Any],
) -> DatasetReader:
    """Open a single-band file warped to `grid`; options as of rasterio's `WarpedVRT`."""
    crs, transform, (height, width) = grid
    dtype = typename_fwd[dtype_rev[options.get("dtype", source.dtypes[0])]]
    control = "".join(
        f'<GCP Id="{i}" Pixel="{p.col!r}" Line="{p.row!r}" X="{p.x!r}" Y="{p.y!r}"/>'
        for i, p in enumerate(points)
    )
    scales = "".join(
        f'<Option name="{name}">{float(options[name])!r}</Option>'
        for name in ("XSCALE", "YSCALE")
        if name in options
    )
    geotransform, inverse = (
        ",".join(map(repr, each.to_gdal())) for each in (transform, ~transform)
    )
    return rasterio.open(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}" subClass="VRTWarpedDataset">'
        f"<SRS>{escape(crs.to_wkt())}</SRS><GeoTransform>{geotransform}</GeoTransform>"
        f'<VRTRasterBand dataType="{dtype}" band="1" subClass="VRTWarpedRasterBand">'
        f"<NoDataValue>{float(options['nodata'])!r}</NoDataValue></VRTRasterBand>"
        f"<BlockXSize>{min(width, 512)}</BlockXSize><BlockYSize>{min(height, 128)}</BlockYSize>"
        "<GDALWarpOptions><WarpMemoryLimit>67108864</WarpMemoryLimit>"
        f"<ResampleAlg>{RESAMPLING[options['resampling']]}</ResampleAlg>"
        f"<WorkingDataType>{dtype}</WorkingDataType>{scales}"
        '<Option name="INIT_DEST">NO_DATA</Option>'
        '<Option name="ERROR_OUT_IF_EMPTY_SOURCE_WINDOW">FALSE</Option>'
        f'<SourceDataset relativeToVRT="0">{escape(source.name)}</SourceDataset><Transformer>'
        "<ApproxTransformer><MaxError>0.125</MaxError><BaseTransformer><GenImgProjTransformer>"
        f"<SrcGCPTransformer><GCPTransformer><Order>0</Order><Reversed>0</Reversed><GCPList>{control}"
        "</GCPList></GCPTransformer></SrcGCPTransformer>"
        f"<DstGeoTransform>{geotransform}</DstGeoTransform>"
        f"<DstInvGeoTransform>{inverse}</DstInvGeoTransform>"
        "</GenImgProjTransformer></BaseTransformer></ApproxTransformer></Transformer><BandList>"
        '<BandMapping src="1" dst="1">'
        f"<SrcNoDataReal>{float(options['src_nodata'])!r}</SrcNoDataReal>"
        f"<DstNoDataReal>{float(options['nodata'])!r}</DstNoDataReal></BandMapping></BandList>"
        "</GDALWarpOptions></VRTDataset>",
        sharing=False,
    )
