"""CLIP-ReID's prompts: "A photo of a X X X X person." with learned words for every training identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError
from .configuration_clip_reid import CLIPReIDConfig

__all__ = ["PromptLearner", "prompt_template_ids"]

# CLIP's token ids of the template (spec section 4).
_START, _END, _PLACEHOLDER, _FULL_STOP = 49406, 49407, 343, 269
_A_PHOTO_OF_A = (320, 1125, 539, 320)
_OBJECTS = {"person": 2533, "vehicle": 5299}


def prompt_template_ids(config: CLIPReIDConfig) -> Tensor:
    """CLIP's token ids of the template, one placeholder per learned word: `(1, L)`, padded with 0 to the text length L."""
    words = [_START, *_A_PHOTO_OF_A, *[_PLACEHOLDER] * config.num_context_tokens, _OBJECTS[config.prompt_object]]
    ids = torch.zeros(1, config.text_config.max_position_embeddings, dtype=torch.long)
    ids[0, : len(words) + 2] = torch.tensor([*words, _FULL_STOP, _END])
    return ids


class PromptLearner(nn.Module):
    """The learned words of every identity, between the fixed words of the template.

    Args:
        config: Number of identities N and words M, width W and length L of the text tower.
    """

    token_prefix: Tensor
    token_suffix: Tensor

    def __init__(self, config: CLIPReIDConfig) -> None:
        super().__init__()
        width, words = config.text_config.hidden_size, config.num_context_tokens
        behind = config.text_config.max_position_embeddings - config.context_start - words
        self.first_word = config.context_start
        self.context = nn.Parameter(torch.empty(config.num_classes, words, width))
        self.register_buffer("token_prefix", torch.empty(1, config.context_start, width))
        self.register_buffer("token_suffix", torch.empty(1, behind, width))

    @torch.no_grad()
    def set_template(self, embedded: Tensor) -> None:
        """Take the fixed words from CLIP.

        Args:
            embedded: `(L, W)` CLIP's embeddings of `prompt_template_ids`; those of the placeholders are not used.

        Raises:
            ConfigurationError: If the shape does not fit.
        """
        words = self.context.shape[1]
        wanted = (self.token_prefix.shape[1] + words + self.token_suffix.shape[1], self.context.shape[2])
        if tuple(embedded.shape) != wanted:
            raise ConfigurationError(
                f"the embedded template has shape {tuple(embedded.shape)}, but {wanted} is needed."
            )
        self.token_prefix.copy_(embedded[None, : self.first_word])
        self.token_suffix.copy_(embedded[None, self.first_word + words :])

    def forward(self, labels: Tensor) -> Tensor:
        """Prompts of `(n,)` identities as token embeddings without positions: `(n, L, W)`."""
        count = len(labels)
        return torch.cat(
            [self.token_prefix.expand(count, -1, -1), self.context[labels], self.token_suffix.expand(count, -1, -1)],
            dim=1,
        )
