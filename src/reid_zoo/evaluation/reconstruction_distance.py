"""Distance of masked pixels from the closest visible ones (avgDist of SimMIM and of VFE-TPS's Fig. 6b)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import EvaluationError

__all__ = ["average_distance"]

_TIE = 1e-9


def average_distance(
    patch_mask: Tensor, patch_size: int, *, image: Tensor | None = None, prediction: Tensor | None = None
) -> float:
    """Mean, over the masked pixels, of a distance to the closest visible pixel.

    Without images: the Euclidean distance in pixel coordinates, SimMIM's own meaning; it depends on the mask only. With
    images: the absolute difference, averaged over the colours, between the predicted value and the input value of the
    closest visible pixel, the reading of VFE-TPS's text; if several are equally close, their mean.

    Args:
        patch_mask: `(rows, columns)`, 1 where a patch is masked.
        patch_size: Edge of a patch in pixels.
        image: `(C, H, W)` input image.
        prediction: `(C, H, W)` reconstruction; both images or none.

    Raises:
        EvaluationError: If everything or nothing is masked, only one image is given, or sizes do not fit.

    References:
        VFE-TPS spec section 7.3.
    """
    if (image is None) != (prediction is None):
        raise EvaluationError("average_distance needs both image and prediction, or neither.")
    mask = patch_mask.bool().repeat_interleave(patch_size, dim=0).repeat_interleave(patch_size, dim=1)
    if image is not None and prediction is not None and not (image.shape[1:] == prediction.shape[1:] == mask.shape):
        raise EvaluationError(
            f"the mask covers {tuple(mask.shape)} pixels, but the images have {tuple(image.shape[1:])} and "
            f"{tuple(prediction.shape[1:])}."
        )
    masked, visible = mask.nonzero(), (~mask).nonzero()
    if not len(masked) or not len(visible):
        raise EvaluationError("average_distance needs both masked and visible patches.")
    total = 0.0
    for block in masked.split(4096):  # (block, all visible pixels) at a time
        distances = torch.cdist(block.double(), visible.double(), compute_mode="donot_use_mm_for_euclid_dist")
        closest = distances.amin(dim=1)
        if image is None or prediction is None:
            total += float(closest.sum())
            continue
        is_closest = (distances <= closest[:, None] + _TIE).double()
        values = image[:, visible[:, 0], visible[:, 1]].double()  # (C, visible)
        predicted = prediction[:, block[:, 0], block[:, 1]].double()  # (C, block)
        weights = is_closest / is_closest.sum(dim=1, keepdim=True)
        differences = (predicted[:, :, None] - values[:, None, :]).abs().mean(dim=0)
        total += float((differences * weights).sum())
    return total / len(masked)
