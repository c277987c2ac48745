"""Which normalisation is chosen, and which notes the user gets."""

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
PUBLISHED = Normalization(BANDS, (200.0, 1000.0), (4000.0, 6000.0))
PRETRAINING = BandStatistics(BANDS, (1400.0, 2400.0), (1000.0, 1500.0), pixels=0)
SIMILAR = BandStatistics(BANDS, (1500.0, 2000.0), (900.0, 1600.0), pixels=10)


class FakeBackbone(Backbone):
    """Has only the statistics that the choice of normalisation reads."""

    def __init__(
        self, normalization: Normalization | None, pretraining: BandStatistics | None
    ) -> None:
        spec = BackboneSpec(name="test/fake", bands=BANDS)
        super().__init__(nn.Identity(), spec, size_divisor=1, licence="none", source=None)
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


def test_data_in_the_units_of_the_pretraining_use_its_normalisation_without_a_note() -> None:
    assert choose_normalization(FakeBackbone(PUBLISHED, PRETRAINING), SIMILAR) == (PUBLISHED, [])


@pytest.mark.parametrize(
    "statistics",
    [
        replace(SIMILAR, mean=(1500.0, 2400.0 + 3.1 * 1500)),
        replace(SIMILAR, mean=(1500.0, 2400.0 - 3.1 * 1500)),
        replace(SIMILAR, std=(900.0, 1500 * 4.1)),
        replace(SIMILAR, std=(900.0, 1500 / 4.1)),
    ],
)
def test_data_in_other_units_use_their_own_normalisation_with_a_note(
    statistics: BandStatistics,
) -> None:
    chosen, notes = choose_normalization(FakeBackbone(PUBLISHED, PRETRAINING), statistics)
    (note,) = notes
    assert note.startswith("band B08 has mean")
    assert "test/fake was trained on 2400 and 1500" in note
    assert "data.normalize=backbone" in note
    assert chosen != PUBLISHED
    for band in range(2):
        # as in the pretraining: (1400 - 200) / 4000 and 1000 / 4000
        mean, std = (0.3, 0.25) if band == 0 else (1400 / 6000, 0.25)
        m, s = statistics.mean[band], statistics.std[band]
        assert apply(chosen, band, m) == pytest.approx(mean)
        assert apply(chosen, band, m + s) == pytest.approx(mean + std)


def test_an_explicit_mode_overrides_the_choice() -> None:
    other = replace(SIMILAR, mean=(0.1, 0.2), std=(0.1, 0.1))
    assert choose_normalization(FakeBackbone(PUBLISHED, PRETRAINING), SIMILAR, "backbone") == (
        PUBLISHED,
        [],
    )
    chosen, [note] = choose_normalization(FakeBackbone(PUBLISHED, PRETRAINING), other, "backbone")
    assert chosen == PUBLISHED and "about 10,000 times smaller (reflectance as 0 to 1" in note
    chosen, notes = choose_normalization(FakeBackbone(PUBLISHED, PRETRAINING), SIMILAR, "data")
    assert notes == []
    assert apply(chosen, 0, 1500.0) == pytest.approx(0.3)


@pytest.mark.parametrize("mode", ["auto", "data"])
def test_without_a_published_normalisation_that_of_the_data_is_used(mode: str) -> None:
    chosen, notes = choose_normalization(FakeBackbone(None, None), SIMILAR, mode)  # type: ignore[arg-type]
    assert chosen == Normalization(BANDS, SIMILAR.mean, SIMILAR.std)
    assert notes == []
    with raises("normalization-missing", key="data.normalize"):
        choose_normalization(FakeBackbone(None, None), SIMILAR, "backbone")


def test_a_published_normalisation_without_pretraining_statistics_is_used() -> None:
    assert choose_normalization(FakeBackbone(PUBLISHED, None), SIMILAR) == (PUBLISHED, [])


@pytest.mark.parametrize("std", [0.0, float("nan")])
def test_a_constant_band_is_rejected(std: float) -> None:
    with raises("band-constant", key="backbone.bands", mentions=["B08"]):
        choose_normalization(FakeBackbone(None, None), replace(SIMILAR, std=(1.0, std)))


def test_given_constants_are_used_as_they_are_and_missing_pixels_are_their_mean() -> None:
    constants = {"B08": (2.0, 4.0), "B03": (0.0, 1.0), "B02": (1.0, 0.5)}
    backbone = FakeBackbone(PUBLISHED, PRETRAINING)
    chosen, notes = choose_normalization(backbone, SIMILAR, constants)
    assert chosen == Normalization(BANDS, (1.0, 2.0), (0.5, 4.0), fill=(1.0, 2.0)) and notes == []
    with raises("band-missing", key="data.normalize", mentions=["B08"]):
        choose_normalization(backbone, SIMILAR, {"B02": (0.0, 1.0)})


def test_missing_pixels_get_the_given_raw_value() -> None:
    chosen, _ = choose_normalization(FakeBackbone(PUBLISHED, None), SIMILAR, nodata_fill=-7)
    assert chosen == replace(PUBLISHED, fill=(-7.0, -7.0))


@given(
    mean=st.floats(-1e5, 1e5),
    std=st.floats(1e-3, 1e5),
)
def test_any_units_are_mapped_to_the_moments_of_the_pretraining(mean: float, std: float) -> None:
    statistics = BandStatistics(BANDS, (mean, mean), (std, std), pixels=1)
    chosen, _ = choose_normalization(FakeBackbone(PUBLISHED, PRETRAINING), statistics, "data")
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(1000, generator=generator, dtype=torch.float64)
    raw = (raw - raw.mean()) / raw.std() * std + mean
    out = (raw - chosen.offset[1]) / chosen.scale[1]
    assert float(out.mean()) == pytest.approx(1400 / 6000, abs=1e-4)
    assert float(out.std()) == pytest.approx(0.25, rel=1e-4)
