"""Random masks of patches and of words, for masked image and masked language modelling.

Everything works on batches of tensors and draws from torch's global generator unless the draws are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigurationError

__all__ = ["MaskedWords", "image_mask", "mask_words", "num_masked_units", "random_image_mask"]

IGNORED_LABEL = 0
_PADDING_ID = 0


def _unit_grid(image_size: tuple[int, int], patch_size: int, mask_patch_size: int) -> tuple[int, int]:
    height, width = image_size
    if mask_patch_size < patch_size or mask_patch_size % patch_size:
        raise ConfigurationError(
            f"mask_patch_size is {mask_patch_size}, but must be a multiple of the patch size {patch_size}."
        )
    if height % mask_patch_size or width % mask_patch_size:
        raise ConfigurationError(
            f"an image of {height}×{width} pixels does not hold whole mask units of {mask_patch_size} pixels; choose "
            "another mask_patch_size."
        )
    return height // mask_patch_size, width // mask_patch_size


def num_masked_units(image_size: tuple[int, int], mask_patch_size: int, mask_ratio: float) -> int:
    """Number of masked units of an image: the share of all units, rounded up, in double precision."""
    height, width = image_size
    return math.ceil((height // mask_patch_size) * (width // mask_patch_size) * mask_ratio)


def image_mask(
    permutations: Tensor, image_size: tuple[int, int], patch_size: int, mask_patch_size: int, mask_ratio: float
) -> Tensor:
    """Masks of patches from random orders of the mask units (VFE-TPS spec section 2.1).

    Args:
        permutations: `(B, U)` permutations of the U row-major mask units; the first ones are masked.
        image_size: `(height, width)` in pixels.
        patch_size: Edge of a patch in pixels.
        mask_patch_size: Edge of a mask unit in pixels, a multiple of `patch_size`.
        mask_ratio: Share of the units that is masked, 0…1.

    Returns:
        `(B, H / patch_size, W / patch_size)` int64, 1 where a patch is masked.

    Raises:
        ConfigurationError: If units do not hold whole patches, or the image whole units.
    """
    rows, columns = _unit_grid(image_size, patch_size, mask_patch_size)
    units = torch.zeros_like(permutations)
    units.scatter_(1, permutations[:, : num_masked_units(image_size, mask_patch_size, mask_ratio)], 1)
    scale = mask_patch_size // patch_size
    grid = units.unflatten(1, (rows, columns))
    return grid.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def random_image_mask(
    batch_size: int,
    image_size: tuple[int, int],
    patch_size: int,
    mask_patch_size: int,
    mask_ratio: float,
    device: torch.device | None = None,
) -> Tensor:
    """One independent mask per sample: `(B, H / patch_size, W / patch_size)`; arguments as in `image_mask`."""
    rows, columns = _unit_grid(image_size, patch_size, mask_patch_size)
    permutations = torch.rand(batch_size, rows * columns, device=device).argsort(dim=1)
    return image_mask(permutations, image_size, patch_size, mask_patch_size, mask_ratio)


@dataclass(frozen=True, slots=True)
class MaskedWords:
    """Sentences with masked words.

    Attributes:
        input_ids: `(B, L)` disturbed ids.
        labels: `(B, L)` original ids at the chosen positions, 0 elsewhere.
    """

    input_ids: Tensor
    labels: Tensor


def mask_words(
    input_ids: Tensor,
    mask_token_id: int,
    *,
    probability: float = 0.15,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    uniform_draws: Tensor | None = None,
    random_ids: Tensor | None = None,
) -> MaskedWords:
    """Choose words and disturb them (IRRA spec section 3).

    Candidates are the ids between padding (0) and the mask, which leaves out start and end. A chosen one becomes the
    mask id, a random id or stays as it is. If none was chosen, the first word is masked; in an empty sentence that is
    the end token.

    Args:
        input_ids: `(B, L)` ids; start and end have larger ids than the mask. Not changed.
        mask_token_id: Id of the mask.
        probability: Probability that a candidate is chosen.
        mask_share: Share of the chosen that become the mask id.
        random_share: Share of the chosen that become a random id below the mask's; the rest stays.
        uniform_draws: `(B, L)` numbers in [0, 1) in place of drawn ones, one per position.
        random_ids: `(B, L)` ids in place of drawn ones, one per position.

    Returns:
        Disturbed ids and labels.
    """
    if uniform_draws is None:
        uniform_draws = torch.rand(input_ids.shape, device=input_ids.device)
    if random_ids is None:
        random_ids = torch.randint(_PADDING_ID + 1, mask_token_id, input_ids.shape, device=input_ids.device)
    candidate = (input_ids > _PADDING_ID) & (input_ids < mask_token_id)
    chosen = candidate & (uniform_draws < probability)
    share = uniform_draws / probability if probability else uniform_draws
    masked = chosen & (share < mask_share)
    replaced = chosen & ~masked & (share < mask_share + random_share)
    disturbed = input_ids.masked_fill(masked, mask_token_id).where(~replaced, random_ids)
    labels = input_ids.where(chosen, IGNORED_LABEL)
    none_chosen = ~chosen.any(dim=1)
    first_word = torch.zeros_like(chosen)
    first_word[:, 1] = none_chosen
    return MaskedWords(
        input_ids=disturbed.masked_fill(first_word, mask_token_id), labels=labels.where(~first_word, input_ids)
    )
