"""What a gallery answers: hits of a search, and facts about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model_identity import ModelIdentity

__all__ = ["GalleryHit", "GalleryInfo"]


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """One answer of a search; `hit["score"]` is `hit.score`.

    Attributes:
        rank: 1 for the best.
        score: The model's own score: the inner product of query and image embedding, or what the model's `similarity`
            makes of their tokens.
        image: Absolute path of the image, or `memory:<hash>` (`image_name`) for one that was added without a file.
        id: Row id in the gallery, for `delete`.
        metadata: Column → value; columns without a value are left out.
        exact: Whether the search it belongs to was exact: no other image in the gallery has a higher score.
    """

    rank: int
    score: float
    image: str
    id: int
    metadata: Mapping[str, Any]
    exact: bool = True

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Names of the fields; with `[]` this makes `dict(hit)` work."""
        return ("rank", "score", "image", "id", "metadata", "exact")


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """Facts about a gallery.

    Attributes:
        path: Its directory.
        rows: Number of images.
        bytes: Size on disk.
        identity: The model it was made with.
        columns: Metadata columns and their types.
        version: Changes with every change of the rows.
        format_version: Of the directory's layout.
        engine: Name of the engine.
        search: `"exact"`, or the name of the approximate index that answers large searches.
        late_interaction: Whether it keeps tokens, by which sentences are scored.
    """

    path: Path
    rows: int
    bytes: int
    identity: ModelIdentity
    columns: Mapping[str, str]
    version: str
    format_version: int
    engine: str
    search: str
    late_interaction: bool = False
