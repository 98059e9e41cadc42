"""Small things for tests: a random CFine model with its processor, and drawn people."""

from __future__ import annotations

from pathlib import Path

import torch

from reid_zoo import CFineConfig, CFineForTraining, ReIDProcessor
from reid_zoo.data import SyntheticPedestrians
from reid_zoo.training.vocabulary import learn_wordpiece_tokenizer

IMAGE_SIZE = (32, 16)
MAX_TEXT_LENGTH = 24


def tiny_config(**fields) -> CFineConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**sizes, "image_size": list(IMAGE_SIZE), "patch_size": 4, **fields.pop("vision_config", {})}
    text = {
        **sizes,
        "vocab_size": 200,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **fields.pop("text_config", {}),
    }
    defaults = {
        "max_text_length": MAX_TEXT_LENGTH,
        "gld_num_attention_heads": 2,
        "num_classes": 6,
        "image_token_ratio": 0.2,
        "text_token_ratio": 0.2,
    }
    return CFineConfig(vision_config=vision, text_config=text, **{**defaults, **fields})


def tiny_model(seed: int = 0, **fields) -> CFineForTraining:
    torch.manual_seed(seed)
    return CFineForTraining(tiny_config(**fields)).eval()


def tiny_processor() -> ReIDProcessor:
    captions = [
        "a woman in a red coat with a black backpack",
        "a man in a blue jacket and brown shoes",
        "the woman wears a green dress and carries a white bag",
    ]
    tokenizer = learn_wordpiece_tokenizer(captions * 3, vocabulary_size=150)
    return ReIDProcessor.build(tokenizer, image_size=IMAGE_SIZE, max_text_length=MAX_TEXT_LENGTH)


def save_tiny_model(folder: Path, seed: int = 0, **fields) -> Path:
    tiny_model(seed, **fields).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def draw_people(root: Path, identities: int = 6, images: int = 2, **options) -> Path:
    """Drawn people in the CUHK-PEDES layout; returns the root."""
    options = {"val_identities": 1, "test_identities": 2, "image_size": (96, 32), **options}
    SyntheticPedestrians(identities, images, **options).write(root, progress=False)
    return root
