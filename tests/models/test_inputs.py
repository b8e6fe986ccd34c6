"""Normalization and augmentation of batches."""

import pytest
import torch

from privhier.models.inputs import augment, normalize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (40, 3, 9, 11), generator=generator(), dtype=torch.uint8)


def shifted(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Translate one image by loops, repeating the border: slow and plain."""
    _, height, width = image.shape
    out = torch.empty_like(image)
    for y in range(height):
        for x in range(width):
            out[:, y, x] = image[:, min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
    return out


def test_normalize_maps_bytes_to_minus_one_and_one() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    out = normalize(images)
    assert out.dtype == torch.float32
    assert torch.allclose(out, (images.double() / 255 - 0.5).div(0.5).float(), atol=1e-6)
    assert images[0, 0, 0, 1] == 1


def test_each_image_is_one_of_its_own_shifts_and_mirrors(images: torch.Tensor) -> None:
    out = augment(images, True, 1, generator())
    assert out.dtype == images.dtype
    seen = set()
    for image, moved in zip(images, out, strict=True):
        candidates = {
            (mirror, dy, dx): shifted(image.flip(-1) if mirror else image, dy, dx)
            for mirror in (False, True)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        hits = [key for key, candidate in candidates.items() if torch.equal(candidate, moved)]
        assert len(hits) == 1
        seen.add(hits[0])
    assert len(seen) >= 12


def test_half_are_mirrored_and_shifts_are_uniform() -> None:
    ramp = torch.arange(21.0).expand(4000, 1, 21, 21).contiguous()
    out = augment(ramp, True, 2, generator())
    mirrored = out[:, 0, 10, 15] < out[:, 0, 10, 5]
    assert 0.46 < mirrored.float().mean() < 0.54
    counts = torch.bincount((out[~mirrored][:, 0, 10, 10] - 8).long(), minlength=5)
    assert counts.shape == (5,)
    assert (counts.float() / counts.sum() - 0.2).abs().max() < 0.03


def test_flip_alone_and_shift_alone(images: torch.Tensor) -> None:
    flipped = augment(images, True, 0, generator())
    as_is = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (as_is | mirrored).all()
    assert as_is.any()
    assert mirrored.any()
    rows = torch.arange(9.0)[None, None, :, None].expand(40, 3, 9, 11).contiguous()
    columns = torch.arange(11.0).expand(40, 3, 9, 11).contiguous()
    assert (augment(columns, False, 2, generator()).diff(dim=-1) >= 0).all()
    assert not torch.equal(augment(rows, False, 2, generator()), rows)


def test_same_generator_same_batch_and_input_untouched(images: torch.Tensor) -> None:
    before = images.clone()
    first = augment(images, True, 2, generator(1))
    assert torch.equal(first, augment(images, True, 2, generator(1)))
    assert not torch.equal(first, augment(images, True, 2, generator(2)))
    assert torch.equal(images, before)


def test_switching_augmentation_off_moves_no_later_draw(images: torch.Tensor) -> None:
    streams = [generator(), generator(), generator()]
    augment(images, True, 2, streams[0])
    augment(images, False, 2, streams[1])
    assert augment(images, False, 0, streams[2]) is images
    draws = [float(torch.rand(1, generator=stream)) for stream in streams]
    assert draws[0] == draws[1] == draws[2]


def test_bytes_and_floats_are_moved_alike(images: torch.Tensor) -> None:
    moved_then_normalized = normalize(augment(images, True, 2, generator()))
    assert torch.equal(moved_then_normalized, augment(normalize(images), True, 2, generator()))
