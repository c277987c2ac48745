import numpy as np

from geotune.data.augment import drop_bands, jitter_brightness
from geotune.data.raster.orientation import NUM_ORIENTATIONS, orient

RNG = np.random.default_rng(0)


def test_the_eight_orientations_are_distinct() -> None:
    square = np.arange(9).reshape(1, 3, 3)
    results = {tuple(orient(square, i).flatten().tolist()) for i in range(NUM_ORIENTATIONS)}
    assert len(results) == NUM_ORIENTATIONS
    assert (orient(square, 0) == square).all()


def test_image_and_mask_are_oriented_in_the_same_way() -> None:
    mask = np.arange(16).reshape(4, 4)
    image = np.stack([mask, mask * 10])
    for i in range(NUM_ORIENTATIONS):
        assert (orient(image, i)[1] == orient(mask, i) * 10).all()


def test_brightness_jitter_has_one_gain_and_offset_for_all_pixels() -> None:
    image = RNG.random((3, 8, 8), dtype=np.float32) * 1000
    image[:, 0, 0] = np.nan
    jittered = jitter_brightness(image, np.random.default_rng(3), 0.3, [100.0, 200.0, 300.0])
    assert jittered.dtype == np.float32
    before, after = image[:, 1:].reshape(3, -1), jittered[:, 1:].reshape(3, -1)
    gain = (after[:, 1] - after[:, 0]) / (before[:, 1] - before[:, 0])
    offset = after[:, 0] - gain * before[:, 0]
    np.testing.assert_allclose(gain, gain[0], rtol=1e-3)
    assert abs(gain[0] - 1) > 1e-3
    np.testing.assert_allclose(offset / [1, 2, 3], offset[0], atol=1e-1)
    np.testing.assert_allclose(after, gain[:, None] * before + offset[:, None], rtol=1e-3)
    assert np.isnan(jittered[:, 0, 0]).all()


def test_zero_strength_changes_nothing() -> None:
    image = RNG.random((2, 4, 4), dtype=np.float32)
    assert (jitter_brightness(image, np.random.default_rng(0), 0.0, [1.0, 1.0]) == image).all()


def test_jitter_by_band_has_one_gain_per_band_for_all_dates() -> None:
    image = RNG.random((3, 2, 4, 4), dtype=np.float32)
    jittered = jitter_brightness(
        image, np.random.default_rng(3), 0.3, [1.0, 2.0, 3.0], by_band=True
    )
    gains = [np.polyfit(x.ravel(), y.ravel(), 1) for x, y in zip(image, jittered, strict=True)]
    for x, y, (gain, offset) in zip(image, jittered, gains, strict=True):
        np.testing.assert_allclose(y, gain * x + offset, rtol=1e-4, atol=1e-5)
    assert len({round(float(gain), 3) for gain, _ in gains}) == 3


def test_bands_are_dropped_with_their_probability_but_never_all() -> None:
    image = RNG.random((4, 3, 3), dtype=np.float32)
    kept = 0
    for seed in range(400):
        result = drop_bands(image, np.random.default_rng(seed), 0.4)
        valid = ~np.isnan(result).any(axis=(1, 2))
        assert valid.any() and np.isnan(result[~valid]).all()
        assert (result[valid] == image[valid]).all()
        kept += int(valid.sum())
    # one of four is always kept, the other three with probability 0.6
    assert abs(kept / 400 - (1 + 3 * 0.6)) < 0.15
