"""Model and processor together: images and sentences in, unit vectors out. What evaluation, galleries and pipelines use.

Models whose score compares tokens (`scores_by_late_interaction`) also give features with tokens, and their score.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors import QueryError
from .model_identity import ModelIdentity
from .outputs import RetrievalFeatures
from .processing import ReIDProcessor

__all__ = ["MissingCameraWarning", "PersonEncoder", "fingerprint", "join_features"]

_SAMPLES_PER_TENSOR = 256

Labels = Sequence[int | None] | None
"""Camera or viewpoint of each image, `None` where unknown."""


class MissingCameraWarning(UserWarning):
    """A model that uses the camera (or the viewpoint) of an image was given images without it."""


def fingerprint(model: Any) -> str:
    """A short hash of a model's configuration and weights.

    Two models that encode differently get different fingerprints: the configuration without its bookkeeping, and from
    every tensor its name, shape and up to 256 evenly spaced values in float32 go into it.
    """
    values = model.config.to_dict()
    for name in ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"):
        values.pop(name, None)
    digest = hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLES_PER_TENSOR)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


class PersonEncoder:
    """Encodes images and sentences with one model.

    Args:
        model: An inference model of the zoo, or a training model (its inference part is used).
        processor: Its processor.
        name: Name to remember the model by; by default the folder or Hub id it was loaded from.
        revision: Revision of the Hub repository, if pinned.
        batch_size: Images or sentences per forward pass.
        device: Where to compute; by default where the model is.
    """

    def __init__(
        self,
        model: Any,
        processor: ReIDProcessor,
        *,
        name: str | None = None,
        revision: str | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
    ) -> None:
        self.model = getattr(model, model.base_model_prefix, model)
        self.processor = processor
        self.batch_size = batch_size
        self.name = name or self.model.config.name_or_path or model.config.name_or_path or "unnamed model"
        self.revision = revision
        self._warned = False
        if device is not None:
            self.model.to(device)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> PersonEncoder:
        """Load model and processor from a folder or the Hub.

        Args:
            name: Folder or Hub id.
            revision: Branch, tag or commit on the Hub.
            batch_size: See the class.
            device: Where to compute; by default a GPU if there is one.
            kwargs: Passed to both `from_pretrained` calls (`token`, `local_files_only`, ...).

        Raises:
            CheckpointError: If there is no model or no processor of the zoo.
        """
        from .auto import ReIDModel

        if revision is not None:
            kwargs["revision"] = revision
        model = ReIDModel.from_pretrained(name, **kwargs)
        processor = ReIDProcessor.from_pretrained(name, **kwargs)
        target = device or ("cuda" if torch.cuda.is_available() else "cpu")
        remembered = os.path.abspath(name) if os.path.isdir(name) else str(name)
        return cls(model, processor, name=remembered, revision=revision, batch_size=batch_size, device=target)

    @cached_property
    def identity(self) -> ModelIdentity:
        """Who made an embedding; stored with every gallery."""
        config = self.model.config
        return ModelIdentity(
            name=self.name,
            revision=self.revision,
            model_type=config.model_type,
            embedding_size=config.embedding_size,
            fingerprint=fingerprint(self.model),
        )

    @property
    def supports_text(self) -> bool:
        """Whether the model reads sentences."""
        return bool(self.model.supports_text)

    @property
    def scores_by_late_interaction(self) -> bool:
        """Whether the model's score compares tokens, so that vectors alone do not rank as it does."""
        return bool(self.model.scores_by_late_interaction)

    @property
    def uses_camera_ids(self) -> bool:
        """Whether the embedding of an image depends on its camera."""
        return bool(self.model.config.uses_camera_ids)

    @property
    def uses_view_ids(self) -> bool:
        """Whether the embedding of an image depends on its viewpoint."""
        return bool(self.model.config.uses_view_ids)

    def encode_images(
        self, images: Sequence[Image.Image], camera_ids: Labels = None, view_ids: Labels = None
    ) -> np.ndarray:
        """PIL images → `(B, E)` float32 rows of unit length.

        Args:
            images: B images.
            camera_ids: Camera of each image, numbered from 0 as in the model's training, `None` where unknown; not used by
                a model without camera embedding. An image without the labels that the model uses is encoded without
                any, which [`MissingCameraWarning`] says once.
            view_ids: Viewpoint of each image, likewise.

        Raises:
            QueryError: If a label is no whole number, out of range, or there are not B of them.
        """
        return self._embeds(self._encode_images(images, camera_ids, view_ids, ("embeds",)))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Sentences → `(B, E)` float32 rows of unit length.

        Raises:
            QueryError: If the model takes images only.
        """
        return self._embeds(self._encode_texts(texts, ("embeds",)))

    def encode_image_features(
        self, images: Sequence[Image.Image], camera_ids: Labels = None, view_ids: Labels = None
    ) -> RetrievalFeatures:
        """What the model's own score needs of images, on the processor: `embeds`, for late interaction also the tokens.

        Args:
            images: B images, at least one.
            camera_ids: As of `encode_images`.
            view_ids: As of `encode_images`.
        """
        fields = ("embeds", "tokens", "token_mask") if self.scores_by_late_interaction else ("embeds",)
        return self._encode_images(images, camera_ids, view_ids, fields)

    def encode_text_features(self, texts: Sequence[str]) -> RetrievalFeatures:
        """What the model's own score needs of sentences (at least one), on the processor; see `encode_image_features`."""
        late = self.scores_by_late_interaction
        return self._encode_texts(texts, ("embeds", "granularities", "tokens", "token_mask") if late else ("embeds",))

    def similarity(self, texts: RetrievalFeatures, images: RetrievalFeatures) -> np.ndarray:
        """The model's own score of features from `encode_text_features` and `encode_image_features`.

        Returns:
            `(num_texts, num_images)` float32.
        """
        with torch.inference_mode():
            scores = self.model.similarity(_moved(texts, self.model.device), _moved(images, self.model.device))
            return np.asarray(scores.float().cpu().numpy())

    def check_query(self, text: str) -> None:
        """Refuse a sentence of which the model knows no word: every such sentence would get the same answers.

        Raises:
            QueryError: If so (as with a query in a script that the training captions do not use), or if the model takes
                images only.
        """
        self.check_supports_text()
        if not self.processor.knows_a_word_of(text):
            raise QueryError(
                f"the model knows no word of the query {shorten(text, 60)!r}; describe the person in the language of "
                "its training captions (English for the published data sets)."
            )

    def check_supports_text(self) -> None:
        """Refuse sentences for a model that takes images only.

        Raises:
            QueryError: If it is one.
        """
        if not self.supports_text:
            raise QueryError(
                f"the model {self.name!r} ({self.model.config.model_type}) takes images only; search with an image, in "
                'pipelines by pipeline("image-person-retrieval").'
            )

    def label_problem(self, camera_id: Any, view_id: Any = None) -> str | None:
        """Why an image with these labels cannot be encoded, in a few words; `None` if it can.

        Args:
            camera_id: Its camera, `None` or NaN if unknown.
            view_id: Its viewpoint, likewise.
        """
        for kind, number_of, used, value in (
            ("camera_id", "num_cameras", self.uses_camera_ids, camera_id),
            ("view_id", "num_views", self.uses_view_ids, view_id),
        ):
            if not used or _is_missing(value):
                continue
            count = getattr(self.model.config, number_of)
            if (
                isinstance(value, bool | np.bool_)
                or not isinstance(value, int | float | np.integer | np.floating)
                or value % 1
            ):
                return f"{kind} is {value!r}, but must be a whole number from 0 to {count - 1}"
            if not 0 <= value < count:
                return f"{kind} is {value}, but the model was trained with {number_of} = {count}, numbered from 0"
        return None

    def _label_groups(
        self, count: int, camera_ids: Labels, view_ids: Labels
    ) -> list[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Rows that are encoded in one way, each with the tensors of their labels; images with all labels come first."""
        columns: dict[str, Sequence[Any]] = {}
        for name, used, values in (
            ("camera_ids", self.uses_camera_ids, camera_ids),
            ("view_ids", self.uses_view_ids, view_ids),
        ):
            if used:
                columns[name] = [None] * count if values is None else values
                if len(columns[name]) != count:
                    raise QueryError(f"there are {len(columns[name])} {name} for {count} images; give one for each.")
        if not columns:
            return [(np.arange(count), {})]
        known = np.ones(count, bool)
        for row in range(count):
            labels = {name: column[row] for name, column in columns.items()}
            problem = self.label_problem(labels.get("camera_ids"), labels.get("view_ids"))
            if problem:
                raise QueryError(f"image {row}: {problem}.")
            known[row] = not any(_is_missing(value) for value in labels.values())
        if not known.all() and not self._warned:
            self._warned = True
            warnings.warn(
                f"the model {self.name!r} was trained with {' and '.join(columns)}, but some images have none; they are "
                "encoded without, which makes their embeddings worse.",
                MissingCameraWarning,
                stacklevel=4,
            )
        with_labels, without = np.flatnonzero(known), np.flatnonzero(~known)
        tensors = {
            name: torch.tensor([int(column[row]) for row in with_labels.tolist()]) for name, column in columns.items()
        }
        return [group for group in ((with_labels, tensors), (without, {})) if len(group[0])]

    def _encode_images(
        self, images: Sequence[Image.Image], camera_ids: Labels, view_ids: Labels, fields: Sequence[str]
    ) -> RetrievalFeatures:
        groups = self._label_groups(len(images), camera_ids, view_ids)
        parts = []
        for rows, labels in groups:

            def encode(part: slice, rows: np.ndarray = rows, labels: Mapping[str, Any] = labels) -> RetrievalFeatures:
                pixels = self.processor.process_images([images[row] for row in rows[part]])
                inputs = {"pixel_values": pixels} | {name: values[part] for name, values in labels.items()}
                return self.model.get_image_features(**_on_device(inputs, self.model.device))

            parts.append(self._encode(len(rows), encode, fields))
        joined = join_features(parts)
        if len(groups) < 2:
            return joined
        return joined.take(torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in groups]))))

    def _encode_texts(self, texts: Sequence[str], fields: Sequence[str]) -> RetrievalFeatures:
        self.check_supports_text()

        def encode(part: slice) -> RetrievalFeatures:
            inputs = self.processor.process_texts(texts[part])
            return self.model.get_text_features(**_on_device(inputs, self.model.device))

        return self._encode(len(texts), encode, fields)

    def _encode(
        self, count: int, encode: Callable[[slice], RetrievalFeatures], fields: Sequence[str]
    ) -> RetrievalFeatures:
        """Encodes in batches; keeps only some fields of the features, on the processor and in float32."""
        was_training = self.model.training
        self.model.eval()
        parts: list[RetrievalFeatures] = []
        try:
            with torch.inference_mode():
                for start in range(0, count, self.batch_size):
                    features = encode(slice(start, start + self.batch_size))
                    kept = RetrievalFeatures(**{name: getattr(features, name) for name in fields})
                    parts.append(_moved(kept, torch.device("cpu"), torch.float32))
        finally:
            self.model.train(was_training)
        return join_features(parts)

    def _embeds(self, features: RetrievalFeatures) -> np.ndarray:
        if features.embeds is None:  # of no images at all
            return np.zeros((0, self.model.config.embedding_size), dtype=np.float32)
        return np.asarray(features.embeds.numpy())


def _is_missing(value: Any) -> bool:
    return value is None or bool(value != value)


def _on_device(inputs: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in inputs.items()}


def _moved(features: RetrievalFeatures, device: torch.device, dtype: torch.dtype | None = None) -> RetrievalFeatures:
    """Features on another device; floating-point tensors in another precision if one is given."""
    return features.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))


def join_features(parts: Sequence[RetrievalFeatures]) -> RetrievalFeatures:
    """Features of several batches as one; without any batch, no field is set."""
    if len(parts) < 2:
        return parts[0] if parts else RetrievalFeatures()
    fields: dict[str, Any] = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if isinstance(first, Mapping):
            fields[name] = {key: torch.cat([value[key] for value in values]) for key in first}
        else:
            fields[name] = torch.cat(values)
    return RetrievalFeatures(**fields)
