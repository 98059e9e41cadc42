"""Model and processor together: images and sentences in, unit vectors out. What evaluation, galleries and pipelines use."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors import QueryError
from .model_identity import ModelIdentity
from .processing import ReIDProcessor

__all__ = ["PersonEncoder", "fingerprint"]

_SAMPLES_PER_TENSOR = 256


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

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """PIL images → `(B, E)` float32 rows of unit length."""
        return self._encode(images, lambda batch: self._image_features(self.processor.process_images(batch)))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Sentences → `(B, E)` float32 rows of unit length."""
        return self._encode(texts, lambda batch: self._text_features(self.processor.process_texts(batch)))

    def check_query(self, text: str) -> None:
        """Refuse a sentence of which the model knows no word: every such sentence would get the same answers.

        Raises:
            QueryError: If so; as with a query in a script that the training captions do not use.
        """
        if not self.processor.knows_a_word_of(text):
            raise QueryError(
                f"the model knows no word of the query {shorten(text, 60)!r}; describe the person in the language of "
                "its training captions (English for the published data sets)."
            )

    def _image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixel_values=pixel_values.to(self.model.device)).embeds

    def _text_features(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model.get_text_features(
            **{key: value.to(self.model.device) for key, value in tokens.items()}
        ).embeds

    def _encode(self, items: Sequence[Any], encode: Any) -> np.ndarray:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                parts: Iterable[torch.Tensor] = [
                    encode(items[start : start + self.batch_size]).float().cpu()
                    for start in range(0, len(items), self.batch_size)
                ]
                if not parts:
                    return np.zeros((0, self.model.config.embedding_size), dtype=np.float32)
                return torch.cat(list(parts)).numpy()
        finally:
            self.model.train(was_training)
