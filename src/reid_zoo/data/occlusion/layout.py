"""Where the occluded version of an image lies, and which annotation file a data set has (MGCC's layout).

A loader of an occluded set reads the ordinary annotation file, whose paths name the holistic images, and asks
`occluded_image_path` for the file to open.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from ...errors import ConfigurationError

__all__ = ["OCCLUDED_SUFFIX", "PROCESSED_FOLDER", "occluded_image_path"]

OCCLUDED_SUFFIX = "_occlusion_new"
"""What is appended to the name of a folder of holistic images."""

PROCESSED_FOLDER = "processed_data"
"""Folder of the annotation files that MGCC's training code reads."""

_MARKED_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "cuhk-pedes": ("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query"),
    "icfg-pedes": ("test", "train"),
    "rstpreid": (),
}


def occluded_image_path(dataset: str, path: str) -> str:
    """Path of the occluded version of an image, e.g. `imgs/cam_a/x.png` → `imgs/cam_a_occlusion_new/x.png`.

    The folders are those of the released tool: for CUHK-PEDES the first found of `cam_a`, `cam_b`, `CUHK01`, `CUHK03`,
    `Market`, `test_query`, `train_query`; for ICFG-PEDES `test` or `train`; for RSTPReid `imgs` itself. Where none of
    them is in the path (subsets and own data in these layouts), it is the first folder below `imgs`, or `imgs` itself.
    Only whole names of folders count, and only below the root.

    Args:
        dataset: `"cuhk-pedes"`, `"icfg-pedes"` or `"rstpreid"`.
        path: Path relative to the data set's folder, with forward slashes; starts with `imgs/`.

    Returns:
        The path of the occluded image, relative to the same folder.

    Raises:
        ConfigurationError: For another data set, or a path that does not start with `imgs/`.
    """
    if dataset not in _MARKED_FOLDERS:
        raise ConfigurationError(f"OGor has no layout for {dataset!r}; it has {', '.join(_MARKED_FOLDERS)}.")
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] != "imgs":
        raise ConfigurationError(f"{path!r} is not a path below imgs/.")
    folders, name = parts[:-1], parts[-1]
    marked = next((folder for folder in _MARKED_FOLDERS[dataset] if folder in folders), None)
    if marked is not None:
        renamed = [folder + OCCLUDED_SUFFIX if folder == marked else folder for folder in folders]
    else:
        position = 1 if len(folders) > 1 and dataset != "rstpreid" else 0
        renamed = list(folders)
        renamed[position] += OCCLUDED_SUFFIX
    return "/".join([*renamed, name])
