"""A band of a raster as a virtual file of its own (GDAL's VRT), for resampling.

When GDAL resamples bands together, a pixel has data unless all of them hold the same nodata value,
and any band that it takes for transparency weighs the pixels of the others. Of a nodata value and a
mask it uses one, so masked pixels get the nodata value here.
"""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from geotune.data.raster.nodata import FileMask, can_hold


def open_single_band(
    source: DatasetReader, band: int, nodata: float | None, mask: FileMask | None
) -> DatasetReader:
    """Open band `band` of `source`, without CRS and transform.

    Pixels without data by `mask` hold `nodata`, or NaN without any; in files of integers without
    `nodata` they are masked. An integer that the file cannot hold widens its data type.
    """
    dtype = np.dtype(source.dtypes[band - 1])
    if nodata is not None and float(nodata).is_integer() and not can_hold(dtype, nodata):
        dtype = np.result_type(dtype, np.min_scalar_type(int(nodata)))
    elif source.count == 1 and mask is None:
        return source
    size = f'rasterXSize="{source.width}" rasterYSize="{source.height}"'
    kind = f'dataType="{typename_fwd[dtype_rev[dtype.name]]}" band="1"'
    content = _band(kind, source.name, band)
    if mask is not None:
        mask_band = mask.alpha or f"mask,{band}"
        mask_xml = _band('dataType="Byte"', source.name, mask_band)
        content += f"<MaskBand>{mask_xml}</MaskBand>"
    dataset = f"<VRTDataset {size}>{content}</VRTDataset>"
    fill = math.nan if nodata is None else nodata
    if mask is not None and can_hold(dtype, fill):
        content = _band(kind, dataset, 1, nodata=fill)
        dataset = f"<VRTDataset {size}>{content}</VRTDataset>"
    return rasterio.open(dataset, sharing=False)


def repeat_columns(source: DatasetReader, period: int, copies: int) -> DatasetReader:
    """Repeat a single-band file from left to right, each time after `period` columns."""

    def band(index: int | str, dtype: str) -> str:
        parts = "".join(
            f'<SimpleSource><SourceFilename shared="0">{escape(source.name)}</SourceFilename>'
            f"<SourceBand>{index}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{source.width}" ySize="{source.height}"/>'
            f'<DstRect xOff="{i * period}" yOff="0" xSize="{source.width}" '
            f'ySize="{source.height}"/></SimpleSource>'
            for i in range(copies)
        )
        return f'<VRTRasterBand dataType="{dtype}" band="1">{parts}</VRTRasterBand>'

    width = (copies - 1) * period + source.width
    content = band(1, typename_fwd[dtype_rev[source.dtypes[0]]])
    if MaskFlags.per_dataset in source.mask_flag_enums[0]:
        content += f"<MaskBand>{band('mask,1', 'Byte')}</MaskBand>"
    size = f'rasterXSize="{width}" rasterYSize="{source.height}"'
    return rasterio.open(f"<VRTDataset {size}>{content}</VRTDataset>", sharing=False)


def _band(kind: str, name: str, band: int | str, nodata: float | None = None) -> str:
    """A band that shows one of the file `name`; with `nodata`, masked pixels hold this value."""
    # a shared handle could be that of the parent process
    source = f'<SourceFilename shared="0">{escape(name)}</SourceFilename>'
    source += f"<SourceBand>{band}</SourceBand>"
    if nodata is None:
        source = f"<SimpleSource>{source}</SimpleSource>"
    else:
        source = f"<ComplexSource>{source}<UseMaskBand>true</UseMaskBand></ComplexSource>"
        source = f"<NoDataValue>{nodata!r}</NoDataValue>{source}"
    return f"<VRTRasterBand {kind}>{source}</VRTRasterBand>"
