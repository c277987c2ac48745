"""Which normalisation is chosen, and what the user is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit
from geotune.backbones.spec import BackboneSpec
from geotune.normalization import choose_normalization
from geotune.types import BandStatistics, Normalization
from helpers.errors import raises

BANDS = ("B02", "B08")
OWN = Normalization(BANDS, (200.0, 1000.0), (4000.0, 6000.0))
SEEN = BandStatistics(BANDS, (1400.0, 2400.0), (1000.0, 1500.0), pixels=0)
ALIKE = BandStatistics(BANDS, (1500.0, 2000.0), (900.0, 1600.0), pixels=10)


class Known(Backbone):
    """Only what a choice of normalisation reads."""

    def __init__(
        self, normalization: Normalization | None, pretraining: BandStatistics | None
    ) -> None:
        request = BackboneSpec(name="test/known", bands=BANDS)
        super().__init__(nn.Identity(), request, size_divisor=1, licence="none", source=None)
        self.normalization = normalization
        self.pretraining = pretraining

    @property
    def blocks(self) -> list[nn.Module]:
        return []

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **metadata: Tensor | None
    ) -> None:
        raise NotImplementedError


def apply(normalization: Normalization, band: int, value: float) -> float:
    return (value - normalization.offset[band]) / normalization.scale[band]


def test_data_like_the_pretrainings_get_its_normalisation_without_a_word() -> None:
    assert choose_normalization(Known(OWN, SEEN), ALIKE) == (OWN, [])


@pytest.mark.parametrize(
    "statistics",
    [
        replace(ALIKE, mean=(1500.0, 2400.0 + 3.1 * 1500)),
        replace(ALIKE, mean=(1500.0, 2400.0 - 3.1 * 1500)),
        replace(ALIKE, std=(900.0, 1500 * 4.1)),
        replace(ALIKE, std=(900.0, 1500 / 4.1)),
    ],
)
def test_data_in_other_units_get_their_own_and_the_user_is_told(
    statistics: BandStatistics,
) -> None:
    found, notes = choose_normalization(Known(OWN, SEEN), statistics)
    (note,) = notes
    assert note.startswith("band B08 has mean")
    assert "test/known was trained on 2400 and 1500" in note
    assert "data.normalize=backbone" in note
    assert found != OWN
    for band in range(2):
        # as the backbone was used to get them: (1400 - 200) / 4000 and 1000 / 4000
        mean, std = (0.3, 0.25) if band == 0 else (1400 / 6000, 0.25)
        m, s = statistics.mean[band], statistics.std[band]
        assert apply(found, band, m) == pytest.approx(mean)
        assert apply(found, band, m + s) == pytest.approx(mean + std)


def test_the_user_decides() -> None:
    other = replace(ALIKE, mean=(0.1, 0.2), std=(0.1, 0.1))
    assert choose_normalization(Known(OWN, SEEN), ALIKE, "backbone") == (OWN, [])
    found, [note] = choose_normalization(Known(OWN, SEEN), other, "backbone")
    assert found == OWN and "about 10,000 times smaller (reflectance as 0 to 1" in note
    found, notes = choose_normalization(Known(OWN, SEEN), ALIKE, "data")
    assert notes == []
    assert apply(found, 0, 1500.0) == pytest.approx(0.3)


@pytest.mark.parametrize("mode", ["auto", "data"])
def test_without_a_published_normalisation_it_is_that_of_the_data(mode: str) -> None:
    found, notes = choose_normalization(Known(None, None), ALIKE, mode)  # type: ignore[arg-type]
    assert found == Normalization(BANDS, ALIKE.mean, ALIKE.std)
    assert notes == []
    with raises("normalization-missing"):
        choose_normalization(Known(None, None), ALIKE, "backbone")


def test_a_published_normalisation_without_statistics_is_taken() -> None:
    assert choose_normalization(Known(OWN, None), ALIKE) == (OWN, [])


@pytest.mark.parametrize("std", [0.0, float("nan")])
def test_a_constant_band_is_named(std: float) -> None:
    with raises("band-constant"):
        choose_normalization(Known(None, None), replace(ALIKE, std=(1.0, std)))


@given(
    mean=st.floats(-1e5, 1e5),
    std=st.floats(1e-3, 1e5),
)
def test_any_units_come_out_as_the_backbone_is_used_to(mean: float, std: float) -> None:
    statistics = BandStatistics(BANDS, (mean, mean), (std, std), pixels=1)
    found, _ = choose_normalization(Known(OWN, SEEN), statistics, "data")
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(1000, generator=generator, dtype=torch.float64)
    raw = (raw - raw.mean()) / raw.std() * std + mean
    out = (raw - found.offset[1]) / found.scale[1]
    assert float(out.mean()) == pytest.approx(1400 / 6000, abs=1e-4)
    assert float(out.std()) == pytest.approx(0.25, rel=1e-4)
