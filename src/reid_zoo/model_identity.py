"""Which model the vectors of a gallery come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["ModelIdentity"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Name and fingerprint of a model; two models of the same identity give comparable embeddings.

    Attributes:
        name: Repository id or directory the model was loaded from, e.g. `"org/cfine-cuhk"`.
        revision: Revision of the repository, `None` where there is none (a local directory).
        model_type: Method, e.g. `"cfine"`.
        embedding_size: Length D of an embedding.
        fingerprint: Hash of configuration and weights. It alone decides about sameness, together with
            `embedding_size`: a model moved to another directory still matches its gallery.
    """

    name: str
    revision: str | None
    model_type: str
    embedding_size: int
    fingerprint: str

    def matches(self, other: ModelIdentity) -> bool:
        """Whether embeddings of the two models may be compared: same fingerprint and embedding size."""
        return self.fingerprint == other.fingerprint and self.embedding_size == other.embedding_size

    def describe(self) -> str:
        """One line for messages: name, revision, method, embedding size and the start of the fingerprint."""
        revision = f" at revision {self.revision}" if self.revision else ""
        return (
            f"'{self.name}'{revision} ({self.model_type}, embedding size {self.embedding_size}, "
            f"fingerprint {self.fingerprint[:12]})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The identity as a dictionary of JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelIdentity:
        """The identity written by `to_dict`; keys it does not know are ignored.

        Raises:
            KeyError: If a field is missing.
        """
        return cls(**{field.name: values[field.name] for field in fields(cls)})
