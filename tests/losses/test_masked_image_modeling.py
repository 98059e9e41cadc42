"""Reconstruction error of masked patches."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import MaskedImageModelingLoss
from reid_zoo.losses.masked_image_modeling import pixel_mask

torch.set_num_threads(1)
PATCH = 4


def images(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


def mask() -> torch.Tensor:
    return torch.tensor([[[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [1, 1, 1]]])


def masked_patches(pixels: torch.Tensor) -> torch.Tensor:
    """The masked patches of the batch as rows of 3·4·4 numbers."""
    found = [pixels[b, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten() for b, y, x in mask().nonzero().tolist()]
    return torch.stack(found)


def test_is_the_mean_absolute_error_of_masked_pixels():
    target, prediction = images(0), images(1)
    loss = MaskedImageModelingLoss(PATCH)(prediction, target, mask())
    expected = (masked_patches(prediction) - masked_patches(target)).abs().mean()
    torch.testing.assert_close(loss, expected)  # one mean over the whole batch, though images differ in masked patches


def test_visible_pixels_do_not_count():
    target, prediction = images(0), images(1)
    loss = MaskedImageModelingLoss(PATCH)
    changed = torch.where(pixel_mask(mask(), PATCH).bool(), prediction, 100.0)
    assert torch.equal(loss(changed, target, mask()), loss(prediction, target, mask()))
    assert loss(prediction, target, torch.zeros_like(mask())).item() == 0


def test_normalised_squares_as_in_mae():
    target, prediction = images(0), images(1)
    patches = masked_patches(target)
    normalised = (patches - patches.mean(dim=1, keepdim=True)) / patches.var(dim=1, keepdim=True).add(1e-6).sqrt()
    expected = (masked_patches(prediction) - normalised).square().mean()
    torch.testing.assert_close(MaskedImageModelingLoss(PATCH, "normalized_mse")(prediction, target, mask()), expected)


def test_bad_arguments_are_explained():
    with pytest.raises(ConfigurationError, match="form is 'l2'"):
        MaskedImageModelingLoss(PATCH, "l2")
    with pytest.raises(ConfigurationError, match=r"mask of \(2, 3\) patches of 2 pixels does not cover .* \(8, 12\)"):
        MaskedImageModelingLoss(2)(images(0), images(1), mask())


@pytest.mark.parametrize("form", ["l1", "normalized_mse"])
def test_parts_of_a_batch_add_up(form):
    loss, given = MaskedImageModelingLoss(PATCH, form), (images(1), images(0), mask())
    parts = [loss.totals(*(value[row : row + 1] for value in given)) for row in range(2)]
    joint = loss.reduce(parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])
    torch.testing.assert_close(joint, loss(*given))
