"""Surface reflectance of the materials that synthetic scenes are made of.

The values are rounded general knowledge of what such surfaces look like to Sentinel-2 (the shapes
of the USGS and ECOSTRESS spectral libraries), not measurements: water is dark and darkest beyond
the red, leaves absorb blue and red and are bright beyond the red edge, dry soil and straw rise
towards 1.6 um, roofs and asphalt are flat, and clouds are white but absorb beyond 1.5 um.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12",
)  # fmt: skip
"""Sentinel-2's bands of the land surface, in order of the columns below."""

WAVELENGTH_UM = (
    0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.842, 0.865, 0.945, 1.610, 2.190,
)  # fmt: skip
"""Central wavelength of each of `BANDS`."""

TEN_METRE_BANDS = ("B02", "B03", "B04", "B08")
"""Bands that the sensor sees at 10 m; the others are coarser and so more blurred."""

_TABLE: dict[str, tuple[float, ...]] = {
    "clear water": (.040, .036, .030, .017, .014, .012, .011, .010, .009, .008, .005, .004),
    "turbid water": (.056, .062, .080, .066, .060, .040, .037, .030, .026, .018, .010, .007),
    "conifer": (.018, .020, .034, .022, .055, .140, .175, .195, .205, .205, .090, .042),
    "broadleaf": (.020, .023, .050, .026, .080, .260, .345, .375, .390, .390, .170, .072),
    "meadow": (.028, .034, .068, .044, .105, .265, .325, .350, .365, .365, .215, .110),
    "green crop": (.026, .031, .068, .037, .092, .310, .410, .440, .455, .455, .190, .085),
    "young crop": (.042, .053, .088, .085, .120, .220, .262, .285, .297, .300, .245, .160),
    "ripe crop": (.058, .076, .118, .148, .180, .222, .245, .268, .284, .288, .335, .225),
    "stubble": (.060, .079, .112, .145, .170, .192, .208, .228, .246, .250, .345, .262),
    "light soil": (.074, .093, .130, .168, .188, .203, .215, .233, .247, .252, .335, .285),
    "dark soil": (.038, .047, .065, .084, .098, .109, .118, .131, .141, .146, .205, .172),
    "asphalt": (.066, .076, .089, .098, .105, .111, .115, .121, .125, .128, .145, .136),
    "tiles": (.070, .084, .112, .160, .184, .199, .209, .220, .230, .235, .258, .226),
    "concrete": (.165, .195, .222, .240, .250, .257, .262, .270, .276, .278, .290, .270),
}  # fmt: skip

MATERIALS = {name: index for index, name in enumerate(_TABLE)}
"""Row of each material in what `spectra` gives."""

CLOUD = np.array(
    [.70, .70, .68, .68, .69, .70, .70, .71, .70, .55, .46, .34], np.float32
)  # fmt: skip
"""Reflectance of a thick cloud in each of `BANDS`."""


def spectra(greenness: float) -> NDArray[np.float32]:
    """Reflectance of every material in every band, `(materials, bands)`, in 0 to 1.

    `greenness` is the season's: 1 is the table, and 0.9 has leaves that absorb less red and
    scatter less near infrared.
    """
    table = np.array(list(_TABLE.values()), np.float32)
    leafy = [MATERIALS[m] for m in ("broadleaf", "meadow", "green crop", "young crop")]
    dry = table[MATERIALS["ripe crop"]]
    table[leafy] = greenness * table[leafy] + (1 - greenness) * dry
    return table
