"""Warning about people who are in the training set and in the test set of an evaluation across data sets.

CUHK-PEDES takes images from CUHK01, CUHK03, Market-1501, VIPeR and a person search set; ICFG-PEDES and RSTPReid both
take theirs from MSMT17, under other names and ids (data set notes, section 1.4). So a model trained on one of such a
pair has seen people of the other one's test split, and its figures there say little about new people.
"""

from __future__ import annotations

import warnings

from ..errors import ConfigurationError
from .dataset_info import DatasetInfo, dataset_info

__all__ = ["IdentityLeakageWarning", "shared_image_sources", "warn_about_leakage"]


class IdentityLeakageWarning(UserWarning):
    """Training data and test data were made from the same collection of images, with different splits."""


def shared_image_sources(first: str, second: str) -> tuple[str, ...]:
    """Collections of images that two data sets both took pictures from, where their splits do not keep people apart.

    Args:
        first: Name of a data set.
        second: Name of another one.

    Returns:
        Names of the collections. Empty for one and the same data set, for a set and its occluded version (same splits),
        and if one of them is not a benchmark, since nothing is known then.
    """
    infos = [_info(first), _info(second)]
    if infos[0] is None or infos[1] is None:
        return ()
    if (infos[0].split_of or infos[0].name) == (infos[1].split_of or infos[1].name):
        return ()
    return tuple(source for source in infos[0].image_sources if source in infos[1].image_sources)


def warn_about_leakage(trained_on: str, evaluated_on: str) -> tuple[str, ...]:
    """Warn if a model was trained on a data set that may hold people of the one it is evaluated on.

    Args:
        trained_on: Name of the training data set.
        evaluated_on: Name of the test data set.

    Returns:
        The collections both were made from; empty, and no warning, if there is none.

    Warns:
        IdentityLeakageWarning: If there is one. Nothing is forbidden.
    """
    shared = shared_image_sources(trained_on, evaluated_on)
    if shared:
        titles = [info.title if (info := _info(name)) else name for name in (trained_on, evaluated_on)]
        warnings.warn(
            f"{titles[0]} and {titles[1]} both hold images of {' and '.join(shared)} under different splits: people of the "
            f"{titles[1]} test may have been seen in training on {titles[0]}, so these figures are not a fair test.",
            IdentityLeakageWarning,
            stacklevel=2,
        )
    return shared


def _info(name: str) -> DatasetInfo | None:
    try:
        return dataset_info(name)
    except ConfigurationError:
        return None
