"""Small things for the tests of CLIP-ReID: configurations, random weights and a batch."""

from __future__ import annotations

from typing import Any

import torch

from reid_zoo.models.clip_reid.configuration_clip_reid import CLIPReIDConfig
from reid_zoo.models.clip_reid.modeling_clip_reid import CLIPReIDForTraining

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
CAMERAS = torch.tensor([0, 1, 2, 0, 1, 2])
VIEWS = torch.tensor([1, 0, 1, 1, 0, 0])
IMAGE_SIZE = (32, 16)


def clip_reid_config(**fields: Any) -> CLIPReIDConfig:
    vision: dict[str, Any] = {"stem_width": 2, "layers": [1, 1, 1, 1], "num_attention_heads": 2}
    if fields.get("backbone", "vit_b16") == "vit_b16":
        vision = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
        }
    return CLIPReIDConfig(
        **{
            "projection_dim": 16,
            "num_classes": 4,
            **fields,
            "vision_config": {**vision, "image_size": list(IMAGE_SIZE), **fields.pop("vision_config", {})},
            "text_config": {
                "hidden_size": 24,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 20,
                **fields.pop("text_config", {}),
            },
        }
    )


def build(seed: int = 0, **fields: Any) -> CLIPReIDForTraining:
    """A model whose every weight matters: noise on top of the initialisation, also in the statistics of batch norms."""
    torch.manual_seed(seed)
    model = CLIPReIDForTraining(clip_reid_config(**fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def images(count: int = len(LABELS)) -> torch.Tensor:
    return torch.randn(count, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
