"""One processor for images and text: what turns photos and sentences into a model's tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, BatchFeature, ViTImageProcessorPil
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import PROCESSOR_NAME

from .clip_tokenizer import clean_caption
from .data.caption_cleaning import CAPTION_CLEANING, clean_evaluation_caption
from .errors import CheckpointError, ConfigurationError, QueryError
from .validation import check_choice

__all__ = ["ReIDProcessor", "TruncationWarning", "register_processor"]

_INTERPOLATIONS = {"bilinear": PILImageResampling.BILINEAR, "bicubic": PILImageResampling.BICUBIC}
_NUM_SPECIAL_TOKENS = 2  # [CLS] pieces [SEP]
CLIP_IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class TruncationWarning(UserWarning):
    """A sentence was longer than the model reads; the rest of it is ignored."""


class ReIDProcessor(ProcessorMixin):
    """Image processor and tokenizer of a retrieval model in one object.

    Images become `pixel_values` `(B, 3, H, W)`: RGB, resized to exactly H×W (the aspect ratio is not kept), scaled to
    [0, 1] and normalised. Sentences become `input_ids` and `attention_mask` `(B, max_text_length)`, always padded to
    that length because it fixes how many words a model selects.

    Args:
        image_processor: transformers' PIL image processor; see `build` for how to make one.
        tokenizer: A tokenizer of transformers; `None` for a model that takes images only. Such a processor refuses text.
        max_text_length: Number of tokens a sentence is cut and padded to, special tokens included.
        truncation_keeps_sep: What happens to a longer sentence: the first `max_text_length` ids are kept and the closing
            separator is lost (`False`, as CFine's release does), or the separator stays last (`True`).
        clean_text: Prepare sentences as CLIP does: repair broken unicode, unescape HTML, collapse white space, lower-case.
        pad_token_id: Id that fills sentences up; the tokenizer's own by default. CLIP's authors use 0, which the
            tokenizer cannot say because 0 is also the id of a letter.
        caption_cleaning: Whose punctuation is removed: of `"none"`, of sentences that are searched with (`"eval"`, as
            MGCC's release does) or of training captions as well (`"both"`); see [`clean_evaluation_caption`].

    Example:
        >>> processor = ReIDProcessor.from_pretrained("org/cfine-cuhk")
        >>> inputs = processor(images=[photo], text=["a woman in a red coat"], return_tensors="pt")
    """

    attributes = ("image_processor", "tokenizer")

    def __init__(
        self,
        image_processor: ViTImageProcessorPil | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_text_length: int = 100,
        truncation_keeps_sep: bool = False,
        clean_text: bool = False,
        pad_token_id: int | None = None,
        caption_cleaning: str = "none",
        **kwargs: Any,
    ) -> None:
        if image_processor is None:
            raise ConfigurationError("ReIDProcessor needs an image_processor; see ReIDProcessor.build().")
        if max_text_length < _NUM_SPECIAL_TOKENS + 1:
            raise ConfigurationError(f"ReIDProcessor.max_text_length is {max_text_length}, but must be at least 3.")
        check_choice("ReIDProcessor", "caption_cleaning", caption_cleaning, CAPTION_CLEANING)
        if not isinstance(image_processor, ViTImageProcessorPil):
            # Loading prefers the torchvision implementation, which does not resize exactly as Pillow does.
            image_processor = ViTImageProcessorPil.from_dict(image_processor.to_dict())
        super().__init__(image_processor, tokenizer, **kwargs)
        self.max_text_length = max_text_length
        self.truncation_keeps_sep = truncation_keeps_sep
        self.clean_text = clean_text
        self.pad_token_id = pad_token_id
        self.caption_cleaning = caption_cleaning

    @classmethod
    def build(
        cls,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        image_size: Sequence[int],
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        interpolation: str = "bicubic",
        max_text_length: int = 100,
        truncation_keeps_sep: bool = False,
        clean_text: bool = False,
        pad_token_id: int | None = None,
        caption_cleaning: str = "none",
    ) -> ReIDProcessor:
        """A processor from plain values; the defaults are CFine's (ImageNet constants, also for CLIP weights).

        Args:
            tokenizer: Tokenizer, or `None` for images only.
            image_size: `(height, width)` in pixels.
            image_mean: Mean per channel, of pixels in [0, 1].
            image_std: Standard deviation per channel.
            interpolation: `"bicubic"` or `"bilinear"`, anti-aliased when shrinking.
            max_text_length: See the class.
            truncation_keeps_sep: See the class.
            clean_text: See the class.
            pad_token_id: See the class.
            caption_cleaning: See the class.
        """
        check_choice("ReIDProcessor.build", "interpolation", interpolation, _INTERPOLATIONS)
        height, width = image_size
        image_processor = ViTImageProcessorPil(
            size={"height": int(height), "width": int(width)},
            image_mean=list(image_mean),
            image_std=list(image_std),
            resample=_INTERPOLATIONS[interpolation],
        )
        return cls(
            image_processor,
            tokenizer,
            max_text_length,
            truncation_keeps_sep,
            clean_text,
            pad_token_id,
            caption_cleaning,
        )

    @classmethod
    def build_for_clip(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: Sequence[int],
        interpolation: str = "bilinear",
        max_text_length: int = 77,
    ) -> ReIDProcessor:
        """A processor for CLIP's two towers as IRRA and VFE-TPS use them: CLIP's constants, padding 0, the end stays.

        Args:
            tokenizer: See [`clip_tokenizer`].
            image_size: `(height, width)` in pixels.
            interpolation: `"bilinear"` (as the authors do) or `"bicubic"`.
            max_text_length: Number of tokens a sentence is cut and padded to, start and end included.
        """
        return cls.build(
            tokenizer,
            image_size=image_size,
            image_mean=CLIP_IMAGE_MEAN,
            image_std=CLIP_IMAGE_STD,
            interpolation=interpolation,
            max_text_length=max_text_length,
            truncation_keeps_sep=True,
            clean_text=True,
            pad_token_id=0,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> ReIDProcessor:
        """Load a processor from a folder or the Hub; the same arguments as in transformers.

        Raises:
            CheckpointError: If there is no processor there.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"cannot read a processor from {str(pretrained_model_name_or_path)!r}: {reason}"
            ) from error

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` in pixels."""
        return self.image_processor.size["height"], self.image_processor.size["width"]

    @property
    def interpolation(self) -> str:
        """`"bilinear"` or `"bicubic"`."""
        return next(name for name, value in _INTERPOLATIONS.items() if value == self.image_processor.resample)

    @property
    def padding_id(self) -> int:
        """Id that fills sentences up."""
        assert self.tokenizer is not None
        return self.pad_token_id if self.pad_token_id is not None else self.tokenizer.pad_token_id or 0

    @property
    def model_input_names(self) -> list[str]:
        """Keys that a call may return."""
        return ["pixel_values"] if self.tokenizer is None else ["pixel_values", "input_ids", "attention_mask"]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Transformers' check of its parts, which does not know that one may be missing."""
        if argument_name == "tokenizer" and argument is None:
            return None
        return super().check_argument_for_proper_class(argument_name, argument)

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], processor_dict: Any = None, **kwargs: Any
    ) -> list[Any]:
        if not processor_dict or processor_dict.get("tokenizer", "") is not None:
            return super()._get_arguments_from_pretrained(pretrained_model_name_or_path, processor_dict, **kwargs)
        return [AutoImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs), None]

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds; it says so where there is no tokenizer."""
        return super().to_dict() | ({"tokenizer": None} if self.tokenizer is None else {})

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Save to a folder, and with `push_to_hub=True` to the Hub; the same arguments as in transformers."""
        if self.tokenizer is not None:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        os.makedirs(save_directory, exist_ok=True)
        path = os.path.join(save_directory, PROCESSOR_NAME)
        self.to_json_file(path)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.abspath(save_directory))), **kwargs)
        return [path]

    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image] | None = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare images, sentences or both.

        Args:
            images: One image or several (PIL images or arrays); any mode, converted to RGB.
            text: One sentence or several.
            return_tensors: Only `"pt"`.
            kwargs: What transformers' own processors take, as long as it asks for what happens anyway: `padding`,
                `truncation` and `max_length`, also in `text_kwargs` and `common_kwargs`.

        Returns:
            `pixel_values` `(B, 3, H, W)` float32 and/or `input_ids`, `attention_mask` `(B, max_text_length)` int64.

        Raises:
            ConfigurationError: For any other argument, or another value.
            QueryError: If a sentence is empty or not text, nothing was given, or text where there is no tokenizer.
        """
        self._check_requests({"return_tensors": return_tensors, **kwargs})
        if images is None and text is None:
            raise QueryError("give images, text or both.")
        data: dict[str, torch.Tensor] = {}
        if images is not None:
            data["pixel_values"] = self.process_images(images if isinstance(images, list | tuple) else [images])
        if text is not None:
            sentences = [text] if isinstance(text, str) else list(text)
            for sentence in sentences:
                if isinstance(sentence, str) and not sentence.strip():
                    raise QueryError(f"the sentence {sentence!r} is empty; describe the person in words.")
            data |= self.process_texts(sentences)
        return BatchFeature(data)

    def _check_requests(self, requests: Mapping[str, Any]) -> None:
        """Refuse every argument that asks for something else than what a call does."""
        done: dict[str, tuple[Any, ...]] = {
            "return_tensors": ("pt",),
            "padding": (True, "longest", "max_length"),  # a longer padding changes no features
            "truncation": (True, "longest_first", "only_first"),
            "max_length": (self.max_text_length, None),
        }
        for name, value in requests.items():
            if name in ("text_kwargs", "images_kwargs", "common_kwargs"):
                self._check_requests(value)
            elif name in ("audio_kwargs", "videos_kwargs"):
                continue  # about inputs that there are none of
            elif name not in done:
                raise ConfigurationError(f"ReIDProcessor takes images, text and return_tensors, not {name}.")
            elif value not in done[name]:
                raise ConfigurationError(
                    f"{name}={value!r}: only {done[name][0]!r} is supported. Sentences are always cut and padded to "
                    "max_text_length."
                )

    def process_images(self, images: Sequence[Any]) -> torch.Tensor:
        """PIL images or arrays `(height, width, 3)` of 0…255 → `(B, 3, H, W)` float32."""
        pictures = [
            (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).convert("RGB")
            for image in images
        ]
        if not pictures:
            raise QueryError("the list of images is empty.")
        return self.image_processor(images=pictures, return_tensors="pt")["pixel_values"]

    def process_texts(self, sentences: Sequence[str], *, training: bool = False) -> dict[str, torch.Tensor]:
        """Sentences → `input_ids` and `attention_mask`, `(B, max_text_length)` int64.

        An empty sentence, which a data set may hold, becomes the special tokens alone; a call of the processor refuses it.

        Args:
            sentences: B sentences.
            training: They are training captions, which `caption_cleaning="eval"` leaves as they are.

        Raises:
            QueryError: If a sentence is not text, there is none, or the processor has no tokenizer.
        """
        tokenizer = self._tokenizer_or_error()
        sentences = list(sentences)
        for sentence in sentences:
            if not isinstance(sentence, str):
                raise QueryError(f"a sentence must be text, not {type(sentence).__name__}.")
        if not sentences:
            raise QueryError("the list of sentences is empty.")
        length = self.max_text_length
        if self.caption_cleaning == "both" or (self.caption_cleaning == "eval" and not training):
            sentences = [clean_evaluation_caption(sentence) for sentence in sentences]
        if self.clean_text:
            sentences = [clean_caption(sentence) for sentence in sentences]
        encoded = tokenizer(sentences, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        input_ids = torch.full((len(sentences), length), self.padding_id)
        attention_mask = torch.zeros(len(sentences), length, dtype=torch.long)
        for row, ids in enumerate(encoded):
            if len(ids) > length:
                kept = [*ids[: length - 1], ids[-1]] if self.truncation_keeps_sep else ids[:length]
                warnings.warn(
                    f"a sentence of {len(sentences[row].split())} words is longer than the {length} tokens the model "
                    f"reads; it was cut after about {length - _NUM_SPECIAL_TOKENS} word pieces.",
                    TruncationWarning,
                    stacklevel=3,
                )
                ids = kept
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _tokenizer_or_error(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise QueryError(
                "this processor has no tokenizer: its model takes images only; give images instead of text."
            )
        return self.tokenizer

    def knows_a_word_of(self, sentence: str) -> bool:
        """Whether any word of a sentence (punctuation aside) is in the tokenizer's vocabulary."""
        tokenizer = self._tokenizer_or_error()
        tokens = tokenizer.tokenize(sentence)
        return any(token != tokenizer.unk_token and any(map(str.isalnum, token)) for token in tokens)


def register_processor() -> None:
    """Make the processor known to transformers' `AutoProcessor` for every method."""
    from transformers import AutoProcessor

    from .models.registry import METHODS

    for method in METHODS.values():
        AutoProcessor.register(method.config_class, ReIDProcessor, exist_ok=True)
