"""Small things for the tests of MGCC: models with random weights, a batch, and the score written down pair by pair."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reid_zoo.models.mgcc.configuration_mgcc import MGCCConfig
from reid_zoo.models.mgcc.late_interaction_mgcc import InteractionFeatures, MultiGranularityFusion
from reid_zoo.models.mgcc.modeling_mgcc import MGCCForTraining
from tiny_clip_models import BATCH, IMAGE_SIZE, LABELS, LENGTH, VOCABULARY, images, sentences

WIDTH, PATCHES, MAX_WORDS = 32, 8, 6


def mgcc_config(**fields: Any) -> MGCCConfig:
    """Z_i = 4 of 8 patches, Z_t = 3 of 6 words; sentences of up to 12 tokens."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text_sizes = {**sizes, "hidden_size": 24, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
    towers = {
        "vision_config": {**sizes, "image_size": list(IMAGE_SIZE), "patch_size": 8, **fields.pop("vision_config", {})},
        "text_config": {**text_sizes, **fields.pop("text_config", {})},
    }
    return MGCCConfig(**{**towers, "rho_image": 0.5, "rho_text": 0.5, "max_words": MAX_WORDS, **fields})


def build_mgcc(model_class: type = MGCCForTraining, seed: int = 0, **fields: Any) -> Any:
    """A model whose every weight matters: noise on top of the initialisation. τ is one that keeps softmaxes soft."""
    torch.manual_seed(seed)
    model = model_class(mgcc_config(**{"softmax_temperature": 0.1, **fields}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("logit_scale"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def mgcc_step(model: Any, seed: int = 3, **changes: Any) -> Any:
    """One training step on six pairs, with whatever is drawn from the same seed every time."""
    torch.manual_seed(seed)
    model.train()
    output = model(**{"pixel_values": images(), "input_ids": sentences(), "person_labels": LABELS, **changes})
    output.loss.backward()
    return output


def random_side(count: int, num_tokens: int, seed: int, width: int = WIDTH) -> InteractionFeatures:
    """Unit vectors in float64."""
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)

    return InteractionFeatures(unit(count, width), unit(count, num_tokens, width))


def _attention(values: Tensor, taking_part: Tensor, matrix: Tensor, temperature: float) -> Tensor:
    """AF_U over those that take part: their softmax, spread by U over all of them."""
    weights = torch.zeros_like(values)
    weights[taking_part] = (values[taking_part] / temperature).softmax(dim=0)
    return (weights @ matrix * values)[taking_part].sum()


def score_of_a_pair(
    fusion: MultiGranularityFusion, image: InteractionFeatures, text: InteractionFeatures
) -> dict[str, Tensor]:
    """The four similarities of one image and one sentence (each a batch of one) and their mean, formula by formula.

    MGCC spec sections 4 and 5. Tokens that a mask leaves out are neither in a softmax nor in a sum, maximum or mean.
    """
    config = fusion.config
    g, patches, t, words = image.coarse[0], image.tokens[0], text.coarse[0], text.tokens[0]
    p, q = (
        torch.ones(len(side.tokens[0]), dtype=torch.bool) if side.mask is None else side.mask[0]
        for side in (image, text)
    )
    eye = torch.eye

    def matrix(name: str, size: int) -> Tensor:
        parameter = getattr(fusion, name)
        return eye(size, dtype=torch.float64) if parameter is None else parameter.double()

    def attention(values: Tensor, taking_part: Tensor, name: str) -> Tensor:
        return _attention(values, taking_part, matrix(name, len(values)), config.softmax_temperature)

    def reduced(values: Tensor, taking_part: Tensor, kind: str) -> Tensor:
        kept = values[taking_part]
        if not len(kept):
            return torch.zeros((), dtype=values.dtype)
        return kept.max() if kind == "max" else kept.mean()

    found = {"it": g @ matrix("global_matrix", len(g)) @ t}
    found["pt"] = attention(patches @ t, p, "patch_text_matrix")
    found["iw"] = attention(words @ g, q, "image_word_matrix")
    if config.aggregation == "attention":
        pairs = patches @ matrix("local_matrix", len(g)) @ words.T
        u = torch.stack([attention(column, p, "patch_matrix") for column in pairs.T])
        v = torch.stack([attention(row, q, "word_matrix") for row in pairs])
        both = attention(u, q, "second_word_matrix"), attention(v, p, "second_patch_matrix")
    else:
        pairs = patches @ words.T
        first, second = config.aggregation.split("_")
        u = torch.stack([reduced(column, p, first) for column in pairs.T])
        v = torch.stack([reduced(row, q, first) for row in pairs])
        both = reduced(u, q, second), reduced(v, p, second)
    found["pw"] = (both[0] + both[1]) / 2
    scale = fusion.logit_scale.double().exp()
    found = {name: scale * found[name] for name in config.similarities}
    return found | {"fused": torch.stack(list(found.values())).mean()}


def scores_pair_by_pair(
    fusion: MultiGranularityFusion, images: InteractionFeatures, texts: InteractionFeatures
) -> dict[str, Tensor]:
    """`(I, T)` of every similarity, one pair at a time, in float64."""

    def one(side: InteractionFeatures, row: int) -> InteractionFeatures:
        mask = None if side.mask is None else side.mask[row : row + 1]
        return InteractionFeatures(side.coarse[row : row + 1].double(), side.tokens[row : row + 1].double(), mask)

    rows = [
        [score_of_a_pair(fusion, one(images, x), one(texts, y)) for y in range(len(texts.tokens))]
        for x in range(len(images.tokens))
    ]
    return {name: torch.stack([torch.stack([pair[name] for pair in row]) for row in rows]) for name in rows[0][0]}


__all__ = ["BATCH", "LABELS", "LENGTH", "images", "sentences"]
__all__ += ["MAX_WORDS", "PATCHES", "WIDTH", "build_mgcc", "mgcc_config", "mgcc_step", "random_side"]
__all__ += ["score_of_a_pair", "scores_pair_by_pair"]
