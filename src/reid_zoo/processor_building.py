"""A method's own processor: from its configuration, and the tokenizer where the configuration does not tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clip_tokenizer import clip_tokenizer
from .errors import CheckpointError
from .processing import ReIDProcessor

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from .models.configuration_base import ReIDPreTrainedConfig

__all__ = ["build_processor", "needs_tokenizer"]

_CLIP_VOCABULARY_SIZE = 49408


def needs_tokenizer(config: ReIDPreTrainedConfig) -> bool:
    """Whether `build_processor` needs to be given the tokenizer: a BERT's, or one of a vocabulary that is not CLIP's."""
    kind = config.processor_defaults.tokenizer
    return kind == "wordpiece" or (kind is not None and config.text_config.vocab_size != _CLIP_VOCABULARY_SIZE)


def build_processor(
    config: ReIDPreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None = None, *, name: str = "the model"
) -> ReIDProcessor:
    """The processor with which a method's authors feed a model of this configuration.

    Args:
        config: The model's configuration.
        tokenizer: Tokenizer of its text tower; CLIP's by default, if its vocabulary is CLIP's.
        name: What to call the model in errors.

    Raises:
        CheckpointError: If a tokenizer is needed, or has more entries than the text tower.
    """
    defaults = config.processor_defaults
    length = None if defaults.tokenizer is None else config.max_text_length
    if tokenizer is None and defaults.tokenizer is not None:
        if needs_tokenizer(config):
            raise CheckpointError(f"{name} reads sentences with a tokenizer of its own: give it.")
        tokenizer = clip_tokenizer(mask_token=defaults.tokenizer == "clip_with_mask")
    if tokenizer is not None and len(tokenizer) > config.text_config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} entries, the text tower of {name} only "
            f"{config.text_config.vocab_size}; give the tokenizer it was trained with."
        )
    return ReIDProcessor.build(
        tokenizer if defaults.tokenizer is not None else None,
        image_size=config.vision_config.image_size,
        image_mean=defaults.pixels.mean,
        image_std=defaults.pixels.std,
        interpolation=defaults.interpolation,
        truncation_keeps_sep=defaults.truncation_keeps_sep,
        clean_text=defaults.clean_text,
        pad_token_id=defaults.pad_token_id,
        caption_cleaning=defaults.caption_cleaning,
        **({} if length is None else {"max_text_length": length}),
    )
