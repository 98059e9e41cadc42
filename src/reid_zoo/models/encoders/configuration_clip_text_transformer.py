"""Configuration of CLIP's text transformer."""

from typing import ClassVar

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import ReIDPreTrainedConfig, checked_config

__all__ = ["ReIDCLIPTextConfig"]


@checked_config
class ReIDCLIPTextConfig(ReIDPreTrainedConfig):
    r"""Configuration of [`CLIPTextTransformer`]; the defaults are the text tower of CLIP ViT-B/16.

    Args:
        vocab_size (`int`, defaults to 49408): Number of token ids; the end-of-text token has the largest one.
        hidden_size (`int`, defaults to 512): Width of every token.
        intermediate_size (`int`, defaults to 2048): Width of the MLP.
        num_hidden_layers (`int`, defaults to 12): Number of blocks.
        num_attention_heads (`int`, defaults to 8): Number of attention heads; must divide `hidden_size`.
        max_position_embeddings (`int`, defaults to 77): Longest sentence in tokens, start and end included.
        hidden_act (`str`, defaults to `"quick_gelu"`): Activation of the MLP (`"gelu"` for most OpenCLIP weights).
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of every layer norm.
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after the embeddings and inside the MLP.
        attention_dropout (`float`, defaults to 0.0): Dropout of the attention probabilities.
        initializer_range (`float`, defaults to 0.02): Standard deviation of newly initialised weights.
    """

    model_type: ClassVar[str] = "reid_clip_text_transformer"
    base_config_key: ClassVar[str] = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float | int = 1e-5
    hidden_dropout_prob: float | int = 0.0
    attention_dropout: float | int = 0.0
    initializer_range: float | int = 0.02

    def validate_fields(self) -> None:
        """The width must hold whole heads; counts must be positive."""
        owner = type(self).__name__
        if self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"{owner}.hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = "
                f"{self.num_attention_heads}."
            )
        check_choice(owner, "hidden_act", self.hidden_act, ("quick_gelu", "gelu"))
        for name, least in (("num_hidden_layers", 1), ("vocab_size", 1), ("max_position_embeddings", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{owner}.{name} is {getattr(self, name)}, but must be at least {least}.")
