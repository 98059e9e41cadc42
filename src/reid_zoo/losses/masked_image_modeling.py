"""Reconstruction of masked image patches."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ConfigurationError
from ..precision import in_full_precision
from ..validation import check_choice

__all__ = ["MaskedImageModelingLoss", "pixel_mask"]

_EPSILON = 1e-5
_VARIANCE_EPSILON = 1e-6


def pixel_mask(patch_mask: Tensor, patch_size: int) -> Tensor:
    """`(B, rows, columns)` mask of patches → `(B, 1, H, W)` mask of pixels, each value repeated p × p."""
    return patch_mask[:, None].repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)


class MaskedImageModelingLoss(nn.Module):
    r"""Mean error of the reconstruction over the masked pixels and colours of the whole batch.

    .. math:: L = \frac{\sum |X - R| \cdot M}{C \, (\sum M + 10^{-5})}

    `sum(M)` counts each pixel once, C is the number of colours.

    Args:
        patch_size: Edge p of a patch in pixels.
        form: `"l1"` (default): absolute error of the pixels as they are; `"normalized_mse"`: squared error of pixels
            normalised by mean and standard deviation of their patch, as in the original MAE.

    References:
        VFE-TPS spec section 2.4 (Eq. 3 of the paper is 3 × this value) and section 4.
    """

    def __init__(self, patch_size: int, form: str = "l1") -> None:
        super().__init__()
        check_choice("MaskedImageModelingLoss", "form", form, ("l1", "normalized_mse"))
        self.patch_size = patch_size
        self.form = form

    def _normalize_patches(self, pixels: Tensor) -> Tensor:
        size = self.patch_size
        patches = pixels.unfold(2, size, size).unfold(3, size, size)  # (B, C, rows, columns, p, p)
        mean = patches.mean(dim=(1, 4, 5), keepdim=True)
        variance = patches.var(dim=(1, 4, 5), keepdim=True)
        normalized = (patches - mean) / (variance + _VARIANCE_EPSILON).sqrt()
        return normalized.transpose(3, 4).reshape(pixels.shape)

    @in_full_precision
    def forward(self, reconstruction: Tensor, pixel_values: Tensor, patch_mask: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            reconstruction: `(B, C, H, W)`.
            pixel_values: `(B, C, H, W)` the normalised input image.
            patch_mask: `(B, H/p, W/p)`, 1 where a patch was masked.

        Returns:
            Scalar.

        Raises:
            ConfigurationError: If the mask does not cover the image.
        """
        return self.reduce(*self.totals(reconstruction, pixel_values, patch_mask))

    def reduce(self, total: Tensor, count: Tensor) -> Tensor:
        """Mean of what `totals` gives, for one batch or added up."""
        return total / (count + _EPSILON)

    @in_full_precision
    def totals(self, reconstruction: Tensor, pixel_values: Tensor, patch_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What parts of a batch add up to: the sum of the errors, averaged over the colours, and the masked pixels.

        Arguments and errors as of `forward`.
        """
        mask = pixel_mask(patch_mask.to(reconstruction.dtype), self.patch_size)
        if mask.shape[2:] != pixel_values.shape[2:]:
            raise ConfigurationError(
                f"a mask of {tuple(patch_mask.shape[1:])} patches of {self.patch_size} pixels does not cover an image "
                f"of {tuple(pixel_values.shape[2:])} pixels."
            )
        target = pixel_values if self.form == "l1" else self._normalize_patches(pixel_values)
        difference = reconstruction - target
        error = difference.abs() if self.form == "l1" else difference.square()
        return (error * mask).sum() / pixel_values.shape[1], mask.sum()
