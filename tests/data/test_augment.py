import numpy as np
import torch

from geotune.data.augment import COUNT, relight, turn, turn_back


def test_the_eight_ways_are_all_there_are() -> None:
    square = torch.arange(9).reshape(1, 3, 3)
    seen = {tuple(turn(square, way).flatten().tolist()) for way in range(COUNT)}
    assert len(seen) == COUNT
    assert torch.equal(turn(square, 0), square)


def test_turn_back_undoes_it() -> None:
    image = torch.rand(3, 4, 6)
    for way in range(COUNT):
        assert torch.equal(turn_back(turn(image, way), way), image)


def test_image_and_mask_turn_alike() -> None:
    mask = torch.arange(16).reshape(4, 4)
    image = torch.stack([mask, mask * 10])
    for way in range(COUNT):
        assert torch.equal(turn(image, way)[1], turn(mask, way) * 10)


def test_other_light_is_one_gain_and_one_offset_for_all_pixels_of_a_band() -> None:
    image = torch.rand(3, 8, 8) * 1000
    image[:, 0, 0] = float("nan")
    light = relight(image, np.random.default_rng(3), 0.3, [100.0, 200.0, 300.0])
    before, after = image[:, 1:].reshape(3, -1), light[:, 1:].reshape(3, -1)
    gain = (after[:, 1] - after[:, 0]) / (before[:, 1] - before[:, 0])
    offset = after[:, 0] - gain * before[:, 0]
    assert torch.allclose(gain, gain[0].expand(3), rtol=1e-3)
    assert not torch.isclose(gain[0], torch.tensor(1.0), atol=1e-3)
    assert torch.allclose(offset / torch.tensor([1.0, 2.0, 3.0]), offset[0].expand(3), atol=1e-1)
    assert torch.allclose(after, gain[:, None] * before + offset[:, None], rtol=1e-3)
    assert light[:, 0, 0].isnan().all()


def test_no_amount_leaves_the_light_as_it_is() -> None:
    image = torch.rand(2, 4, 4)
    assert torch.equal(relight(image, np.random.default_rng(0), 0.0, [1.0, 1.0]), image)
