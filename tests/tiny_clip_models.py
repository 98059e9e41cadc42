"""Small things for the tests of IRRA and VFE-TPS: configurations, random weights and a batch."""

from __future__ import annotations

from typing import Any

import torch

from reid_zoo.models.irra.configuration_irra import IRRAConfig
from reid_zoo.models.irra.modeling_irra import IRRAForTraining
from reid_zoo.models.vfe_tps.configuration_vfe_tps import VFETPSConfig
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining

BATCH, LENGTH, VOCABULARY, CLASSES, DIMENSION = 6, 12, 40, 4, 16
MASK, START, END = VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1
IMAGE_SIZE = (32, 16)  # 4 × 2 patches
LABELS = torch.tensor([0, 1, 2, 0, 3, 1])


def config_fields(**fields: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "vision_config": {**sizes, "image_size": list(IMAGE_SIZE), "patch_size": 8, **fields.pop("vision_config", {})},
        "text_config": {
            **sizes,
            "hidden_size": 24,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": LENGTH,
            **fields.pop("text_config", {}),
        },
        "projection_dim": DIMENSION,
        "num_classes": CLASSES,
        "cross_modal_num_layers": 1,
        "cross_modal_num_attention_heads": 2,
        **fields,
    }


def irra_config(**fields: Any) -> IRRAConfig:
    return IRRAConfig(**config_fields(**fields))


def vfe_tps_config(**fields: Any) -> VFETPSConfig:
    return VFETPSConfig(**config_fields(**{"mask_patch_size": 8, "gvfc_num_samples": 4, **fields}))


def build(model_class: type = IRRAForTraining, seed: int = 0, **fields: Any) -> Any:
    """A model whose every weight matters: noise on top of the initialisation."""
    torch.manual_seed(seed)
    is_vfe_tps = model_class.config_class is VFETPSForTraining.config_class
    model = model_class(vfe_tps_config(**fields) if is_vfe_tps else irra_config(**fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images(count: int = BATCH, height: int = IMAGE_SIZE[0], width: int = IMAGE_SIZE[1]) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def sentences(ends: tuple[int, ...] = (5, 11, 7, 3, 9, 8)) -> torch.Tensor:
    """Ids whose end token stands at `ends`, followed by padding."""
    ids = torch.randint(1, MASK, (len(ends), LENGTH), generator=torch.Generator().manual_seed(2))
    ids[:, 0] = START
    for row, end in enumerate(ends):
        ids[row, end], ids[row, end + 1 :] = END, 0
    return ids


def step(model: Any, seed: int = 3, **changes: Any) -> Any:
    """One training step; masks and samples are drawn from the same seed every time."""
    torch.manual_seed(seed)
    model.train()
    output = model(**{"pixel_values": images(), "input_ids": sentences(), "person_labels": LABELS, **changes})
    output.loss.backward()
    return output


def same_weights(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
