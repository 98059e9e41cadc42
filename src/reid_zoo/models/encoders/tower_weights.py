"""Reading published vision-tower weights: OpenAI CLIP and OpenCLIP, transformers CLIP, ImageNet ViT (`.npz` and the like).

Every function takes and returns plain dictionaries of tensors, so that a method's conversion can use them on a part of a
checkpoint. Rules are linear (renaming, stacking, transposing): applied to gradients they give gradients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError

__all__ = [
    "convert_imagenet_jax_vision",
    "convert_imagenet_vision",
    "convert_openai_clip_vision",
    "convert_timm_vision",
    "convert_transformers_clip_vision",
    "convert_transformers_vit",
    "fuse_projections",
    "infer_vision_sizes",
    "rename",
]

_LAYER = r"(?P<layer>\d+)"


def rename(state: Mapping[str, Tensor], rules: Mapping[str, str], what: str) -> dict[str, Tensor]:
    """Rename every key by the first rule (regular expression → replacement) that matches the whole key.

    Raises:
        CheckpointError: If a key matches no rule; it is named.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules.items()]
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in compiled:
            match = pattern.fullmatch(key)
            if match:
                renamed[match.expand(replacement)] = value
                break
        else:
            raise CheckpointError(f"{what}: unexpected key {key!r}.")
    return renamed


def fuse_projections(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stack `q_proj`, `k_proj`, `v_proj` into `in_proj`, rows in that order."""
    fused = {key: value for key, value in state.items() if not re.search(r"\.[qkv]_proj\.", key)}
    for key in state:
        if ".q_proj." in key:
            partners = [key.replace(".q_proj.", f".{name}_proj.") for name in "qkv"]
            missing = [name for name in partners if name not in state]
            if missing:
                raise CheckpointError(f"{key} has no {missing[0]} beside it.")
            parts = [state[name] for name in partners]
            fused[key.replace(".q_proj.", ".in_proj.")] = torch.cat(parts)
    return fused


def convert_openai_clip_vision(state: Mapping[str, Tensor], *, drop_projection: bool = True) -> dict[str, Tensor]:
    """OpenAI CLIP or OpenCLIP `visual.*` (prefix removed) → the zoo's vision transformer.

    Args:
        state: Keys such as `conv1.weight`, `transformer.resblocks.0.attn.in_proj_weight`, `proj`.
        drop_projection: Leave the output projection `proj` out; the methods here work before it.

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    kept = {key: value for key, value in state.items() if not (drop_projection and key == "proj")}
    block = r"transformer\.resblocks\." + _LAYER + r"\."
    return rename(
        kept,
        {
            r"class_embedding": "embeddings.class_embedding",
            r"positional_embedding": "embeddings.position_embedding",
            r"conv1\.weight": "embeddings.patch_embedding.weight",
            r"ln_pre\.(weight|bias)": r"pre_layernorm.\1",
            r"ln_post\.(weight|bias)": r"post_layernorm.\1",
            block + r"ln_([12])\.(weight|bias)": r"layers.\1.layer_norm\2.\3",
            block + r"attn\.in_proj_(weight|bias)": r"layers.\1.self_attn.in_proj.\2",
            block + r"attn\.out_proj\.(weight|bias)": r"layers.\1.self_attn.out_proj.\2",
            block + r"mlp\.c_fc\.(weight|bias)": r"layers.\1.mlp.fc1.\2",
            block + r"mlp\.c_proj\.(weight|bias)": r"layers.\1.mlp.fc2.\2",
        },
        "CLIP vision tower",
    )


def convert_transformers_clip_vision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP of transformers, `vision_model.*` (prefix removed) → the zoo's vision transformer.

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    kept = {key: value for key, value in state.items() if key != "embeddings.position_ids"}
    block = r"encoder\.layers\." + _LAYER + r"\."
    renamed = rename(
        kept,
        {
            r"embeddings\.(class_embedding|patch_embedding\.weight)": r"embeddings.\1",
            r"embeddings\.position_embedding\.weight": "embeddings.position_embedding",
            r"pre_?layr?norm\.(weight|bias)": r"pre_layernorm.\1",
            r"post_layernorm\.(weight|bias)": r"post_layernorm.\1",
            block + r"layer_norm([12])\.(weight|bias)": r"layers.\1.layer_norm\2.\3",
            block + r"self_attn\.([qkv]|out)_proj\.(weight|bias)": r"layers.\1.self_attn.\2_proj.\3",
            block + r"mlp\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
        },
        "transformers CLIP vision tower",
    )
    return fuse_projections(renamed)


def convert_transformers_vit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`ViTModel` of transformers, without its pooler → the zoo's vision transformer.

    Both namings of its blocks are read: `layers.0.attention.q_proj` and the older
    `encoder.layer.0.attention.attention.query`.

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    block = r"(?:encoder\.layer|layers)\." + _LAYER + r"\."
    renamed = rename(
        state,
        {
            r"embeddings\.cls_token": "embeddings.class_embedding",
            r"embeddings\.position_embeddings": "embeddings.position_embedding",
            r"embeddings\.patch_embeddings\.projection\.(weight|bias)": r"embeddings.patch_embedding.\1",
            r"layernorm\.(weight|bias)": r"post_layernorm.\1",
            block + r"layernorm_before\.(weight|bias)": r"layers.\1.layer_norm1.\2",
            block + r"layernorm_after\.(weight|bias)": r"layers.\1.layer_norm2.\2",
            block + r"attention\.([qkv])_proj\.(weight|bias)": r"layers.\1.self_attn.\2_proj.\3",
            block + r"attention\.o_proj\.(weight|bias)": r"layers.\1.self_attn.out_proj.\2",
            block + r"mlp\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
            block + r"attention\.attention\.(q|k|v)(?:uery|ey|alue)\.(weight|bias)": (
                r"layers.\1.self_attn.\2_proj.\3"
            ),
            block + r"attention\.output\.dense\.(weight|bias)": r"layers.\1.self_attn.out_proj.\2",
            block + r"intermediate\.dense\.(weight|bias)": r"layers.\1.mlp.fc1.\2",
            block + r"output\.dense\.(weight|bias)": r"layers.\1.mlp.fc2.\2",
        },
        "transformers ViT",
    )
    return _fill_in_projection_biases(_flatten_embeddings(fuse_projections(renamed)))


def convert_timm_vision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain vision transformer of timm → the zoo's; the classification head is left out.

    Raises:
        CheckpointError: For a key that is not part of such a tower (layer scale, registers, pooled norms, ...).
    """
    kept = {key: value for key, value in state.items() if not re.match(r"(head|pre_logits)\.", key)}
    block = r"blocks\." + _LAYER + r"\."
    renamed = rename(
        kept,
        {
            r"cls_token": "embeddings.class_embedding",
            r"pos_embed": "embeddings.position_embedding",
            r"patch_embed\.proj\.(weight|bias)": r"embeddings.patch_embedding.\1",
            r"norm_pre\.(weight|bias)": r"pre_layernorm.\1",
            r"norm\.(weight|bias)": r"post_layernorm.\1",
            block + r"norm([12])\.(weight|bias)": r"layers.\1.layer_norm\2.\3",
            block + r"attn\.qkv\.(weight|bias)": r"layers.\1.self_attn.in_proj.\2",
            block + r"attn\.proj\.(weight|bias)": r"layers.\1.self_attn.out_proj.\2",
            block + r"mlp\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
        },
        "timm vision transformer",
    )
    return _fill_in_projection_biases(_flatten_embeddings(renamed))


def _flatten_embeddings(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the leading axes that other libraries keep on the class token `(1, 1, D)` and the positions `(1, L, D)`."""
    flat = dict(state)
    for key, wanted in (("embeddings.class_embedding", 1), ("embeddings.position_embedding", 2)):
        if key in flat:
            flat[key] = flat[key].reshape(flat[key].shape[flat[key].ndim - wanted :])
    return flat


def _fill_in_projection_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Zero biases for in-projections trained without any (`qkv_bias=False`): the same function."""
    filled = dict(state)
    for key, value in state.items():
        bias = key.removesuffix("weight") + "bias"
        if key.endswith(".in_proj.weight") and bias not in state:
            filled[bias] = value.new_zeros(value.shape[0])
    return filled


def convert_imagenet_vision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet ViT as CFine's release stores it (`embeddings.*`, `encoder.*`) → the zoo's vision transformer.

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    block = r"encoder\.layer\." + _LAYER + r"\."
    renamed = rename(
        state,
        {
            r"embeddings\.cls_token": "embeddings.class_embedding",
            r"embeddings\.position_embeddings": "embeddings.position_embedding",
            r"embeddings\.patch_embeddings\.(weight|bias)": r"embeddings.patch_embedding.\1",
            r"encoder\.encoder_norm\.(weight|bias)": r"post_layernorm.\1",
            block + r"attention_norm\.(weight|bias)": r"layers.\1.layer_norm1.\2",
            block + r"ffn_norm\.(weight|bias)": r"layers.\1.layer_norm2.\2",
            block + r"attn\.(q)uery\.(weight|bias)": r"layers.\1.self_attn.\2_proj.\3",
            block + r"attn\.(k)ey\.(weight|bias)": r"layers.\1.self_attn.\2_proj.\3",
            block + r"attn\.(v)alue\.(weight|bias)": r"layers.\1.self_attn.\2_proj.\3",
            block + r"attn\.out\.(weight|bias)": r"layers.\1.self_attn.out_proj.\2",
            block + r"ffn\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
        },
        "ImageNet vision tower",
    )
    return _flatten_embeddings(fuse_projections(renamed))


def convert_imagenet_jax_vision(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """The original JAX `.npz` of an ImageNet ViT → the zoo's vision transformer; the classification head is left out.

    Args:
        arrays: Name → array, e.g. `numpy.load(path)`.

    Raises:
        CheckpointError: If an array is missing.
    """

    def get(name: str) -> Tensor:
        if name not in arrays:
            raise CheckpointError(f"ImageNet ViT .npz: no array {name!r}.")
        return torch.from_numpy(arrays[name]).clone()

    state = {
        "embeddings.class_embedding": get("cls").reshape(-1),
        "embeddings.position_embedding": get("Transformer/posembed_input/pos_embedding")[0],
        "embeddings.patch_embedding.weight": get("embedding/kernel").permute(3, 2, 0, 1).contiguous(),
        "embeddings.patch_embedding.bias": get("embedding/bias"),
        "post_layernorm.weight": get("Transformer/encoder_norm/scale"),
        "post_layernorm.bias": get("Transformer/encoder_norm/bias"),
    }
    num_layers = len({name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")})
    for layer in range(num_layers):
        source, target = f"Transformer/encoderblock_{layer}", f"layers.{layer}"
        for ours, theirs in (("layer_norm1", "LayerNorm_0"), ("layer_norm2", "LayerNorm_2")):
            state[f"{target}.{ours}.weight"] = get(f"{source}/{theirs}/scale")
            state[f"{target}.{ours}.bias"] = get(f"{source}/{theirs}/bias")
        attention = f"{source}/MultiHeadDotProductAttention_1"
        width = state["embeddings.class_embedding"].numel()
        kernels, biases = [], []
        for name in ("query", "key", "value"):
            kernels.append(get(f"{attention}/{name}/kernel").reshape(width, width).T)
            biases.append(get(f"{attention}/{name}/bias").reshape(width))
        state[f"{target}.self_attn.in_proj.weight"] = torch.cat(kernels)
        state[f"{target}.self_attn.in_proj.bias"] = torch.cat(biases)
        state[f"{target}.self_attn.out_proj.weight"] = (
            get(f"{attention}/out/kernel").reshape(width, width).T.contiguous()
        )
        state[f"{target}.self_attn.out_proj.bias"] = get(f"{attention}/out/bias")
        for ours, theirs in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            state[f"{target}.mlp.{ours}.weight"] = get(f"{source}/MlpBlock_3/{theirs}/kernel").T.contiguous()
            state[f"{target}.mlp.{ours}.bias"] = get(f"{source}/MlpBlock_3/{theirs}/bias")
    return state


def infer_vision_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a converted vision tower, as far as its shapes tell (the number of heads and the grid they do not).

    Returns:
        Fields of [`ReIDVisionConfig`], and `num_positions`, the rows of the position embedding.
    """
    width, channels, patch, _ = state["embeddings.patch_embedding.weight"].shape
    layers = {int(key.split(".")[1]) for key in state if key.startswith("layers.")}
    return {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "intermediate_size": state["layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "patch_bias": "embeddings.patch_embedding.bias" in state,
        "use_pre_layernorm": "pre_layernorm.weight" in state,
        "num_positions": state["embeddings.position_embedding"].shape[0],
    }
