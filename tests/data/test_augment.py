import torch

from geotune.data.augment import COUNT, turn, turn_back


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
