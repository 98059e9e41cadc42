"""Resampling the position embedding of a vision transformer to another patch grid."""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ConfigurationError

__all__ = ["resample_position_grid", "square_grid"]


def square_grid(num_positions: int) -> tuple[int, int]:
    """Grid of a square image from the number of position rows (class row included).

    Raises:
        ConfigurationError: If the rows do not form a square; then the grid must be given.
    """
    edge = round((num_positions - 1) ** 0.5)
    if edge * edge != num_positions - 1:
        raise ConfigurationError(
            f"a position embedding of {num_positions} rows is not 1 + a square grid; give the checkpoint's image_size "
            "as [height, width]."
        )
    return edge, edge


def resample_position_grid(
    embedding: Tensor,
    source_grid: tuple[int, int],
    target_grid: tuple[int, int],
    *,
    mode: str = "bilinear",
    align_corners: bool = True,
) -> Tensor:
    """Resize the grid part of a position embedding; the class row stays.

    Args:
        embedding: `(1 + h·w, D)`, class row first, grid row-major.
        source_grid: `(h, w)` of `embedding`.
        target_grid: `(h', w')` wanted.
        mode: `"bilinear"` or `"bicubic"`.
        align_corners: Corner-to-corner alignment (CFine's ImageNet ViT, spec section 2.2: true).

    Returns:
        `(1 + h'·w', D)` in the dtype of `embedding`.

    Raises:
        ConfigurationError: If the number of rows does not fit `source_grid`.
    """
    rows, columns = source_grid
    if embedding.shape[0] != 1 + rows * columns:
        raise ConfigurationError(
            f"the position embedding has {embedding.shape[0]} rows, but a grid of {rows}×{columns} patches needs "
            f"{1 + rows * columns}."
        )
    if source_grid == target_grid:
        return embedding
    grid = embedding[1:].float().T.reshape(1, -1, rows, columns)
    grid = nn.functional.interpolate(grid, size=target_grid, mode=mode, align_corners=align_corners)
    resampled = embedding.new_empty(1 + target_grid[0] * target_grid[1], embedding.shape[1])
    resampled[0] = embedding[0]
    resampled[1:] = grid.flatten(2)[0].T.to(embedding.dtype)
    return resampled
