"""Errors that a user can cause and mend.

Every one of them carries a message of one line that names the offending thing and what to do about it; the command
line prints that line and exits with a non-zero status. Programming errors are not wrapped: they keep their traceback.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DatasetError",
    "EvaluationError",
    "FilterError",
    "GalleryError",
    "ImageReadError",
    "MissingPackageError",
    "ModelMismatchError",
    "QueryError",
    "ReIDZooError",
    "RecipeError",
    "TrainingError",
]


class ReIDZooError(Exception):
    """Base of every error that reid_zoo raises on purpose; its text is one line meant for the user."""


class ConfigurationError(ReIDZooError, ValueError):
    """A configuration, preset or option that is unknown, or inconsistent with another one."""


class CheckpointError(ReIDZooError, ValueError):
    """A checkpoint or model directory that cannot be read, is not ours, or belongs to another method."""


class DatasetError(ReIDZooError, ValueError):
    """A data root with the wrong layout, an annotation file with a bad record, or missing captions or identities."""


class ImageReadError(ReIDZooError, OSError):
    """One image file that cannot be decoded. `path` is the file, `reason` says why in a few words."""

    def __init__(self, path: object, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")


class MissingPackageError(ReIDZooError, ImportError):
    """A package of an optional extra that is not installed. The message says how to install it."""


class EvaluationError(ReIDZooError, ValueError):
    """Scores or labels that no metric can be computed from."""


class GalleryError(ReIDZooError, RuntimeError):
    """A gallery that is missing, damaged, or cannot do what was asked."""


class ModelMismatchError(GalleryError):
    """A gallery and a model that do not belong together. The message names both."""


class FilterError(GalleryError, ValueError):
    """A `where` expression that cannot be parsed, or that names a field the gallery does not have."""


class QueryError(ReIDZooError, ValueError):
    """A query that cannot be searched for: empty, or of a type that is neither text nor image."""


class RecipeError(ReIDZooError, ValueError):
    """A training recipe that does not exist, or a field of one that is unknown or has a bad value."""


class TrainingError(ReIDZooError, RuntimeError):
    """A training run that cannot go on: a loss that is no number, too little memory, or a folder that another run writes to.

    Checkpoints are left as they are.
    """
