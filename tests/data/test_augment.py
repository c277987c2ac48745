import numpy as np

from geotune.data.augment import drop_bands, jitter_brightness
from geotune.data.raster.orientation import NUM_ORIENTATIONS, orient

RNG = np.random.default_rng(0)


def test_the_eight_ways_are_all_there_are() -> None:
    square = np.arange(9).reshape(1, 3, 3)
    seen = {tuple(orient(square, way).flatten().tolist()) for way in range(NUM_ORIENTATIONS)}
    assert len(seen) == NUM_ORIENTATIONS
    assert (orient(square, 0) == square).all()


def test_image_and_mask_turn_alike() -> None:
    mask = np.arange(16).reshape(4, 4)
    image = np.stack([mask, mask * 10])
    for way in range(NUM_ORIENTATIONS):
        assert (orient(image, way)[1] == orient(mask, way) * 10).all()


def test_other_light_is_one_gain_and_one_offset_for_all_pixels_of_a_band() -> None:
    image = RNG.random((3, 8, 8), dtype=np.float32) * 1000
    image[:, 0, 0] = np.nan
    light = jitter_brightness(image, np.random.default_rng(3), 0.3, [100.0, 200.0, 300.0])
    assert light.dtype == np.float32
    before, after = image[:, 1:].reshape(3, -1), light[:, 1:].reshape(3, -1)
    gain = (after[:, 1] - after[:, 0]) / (before[:, 1] - before[:, 0])
    offset = after[:, 0] - gain * before[:, 0]
    np.testing.assert_allclose(gain, gain[0], rtol=1e-3)
    assert abs(gain[0] - 1) > 1e-3
    np.testing.assert_allclose(offset / [1, 2, 3], offset[0], atol=1e-1)
    np.testing.assert_allclose(after, gain[:, None] * before + offset[:, None], rtol=1e-3)
    assert np.isnan(light[:, 0, 0]).all()


def test_no_amount_leaves_the_light_as_it_is() -> None:
    image = RNG.random((2, 4, 4), dtype=np.float32)
    assert (jitter_brightness(image, np.random.default_rng(0), 0.0, [1.0, 1.0]) == image).all()


def test_other_light_may_be_another_for_each_band_and_every_date_of_it() -> None:
    image = RNG.random((3, 2, 4, 4), dtype=np.float32)
    light = jitter_brightness(image, np.random.default_rng(3), 0.3, [1.0, 2.0, 3.0], by_band=True)
    gains = [np.polyfit(x.ravel(), y.ravel(), 1) for x, y in zip(image, light, strict=True)]
    for x, y, (gain, offset) in zip(image, light, gains, strict=True):
        np.testing.assert_allclose(y, gain * x + offset, rtol=1e-4, atol=1e-5)
    assert len({round(float(gain), 3) for gain, _ in gains}) == 3


def test_bands_are_left_out_at_their_share_and_never_all() -> None:
    image = RNG.random((4, 3, 3), dtype=np.float32)
    kept = 0
    for seed in range(400):
        found = drop_bands(image, np.random.default_rng(seed), 0.4)
        there = ~np.isnan(found).any(axis=(1, 2))
        assert there.any() and np.isnan(found[~there]).all()
        assert (found[there] == image[there]).all()
        kept += int(there.sum())
    # one of four stays in any case, of the other three 0.6
    assert abs(kept / 400 - (1 + 3 * 0.6)) < 0.15
