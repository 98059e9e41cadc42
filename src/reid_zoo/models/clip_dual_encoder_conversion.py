"""Reading official checkpoints of the IRRA family: what IRRA's and VFE-TPS's conversions share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ..errors import CheckpointError
from .encoders.text_tower_weights import convert_openai_clip_text, infer_clip_text_sizes
from .encoders.tower_weights import convert_openai_clip_vision, infer_vision_sizes, rename

__all__ = [
    "FAMILY_SIGNATURE",
    "convert_cross_modal_branch",
    "convert_towers",
    "describe_towers",
    "infer_branch_layers",
    "infer_tower_fields",
    "leftover_reason",
    "official_options",
    "part",
]

BASE = "base_model."
FAMILY_SIGNATURE = re.compile(r"(module\.)?base_model\.visual\.conv1\.weight")
"""A key of every checkpoint of the family; enough where no other method's signature is present (towers alone)."""

_HEAD_WIDTH = 64
_RELEASED_GRID = (24, 8)
# Entries of the original CLIP that are no weights of the towers, or not used with a fixed temperature.
_CLIP_LEFTOVERS = {
    "logit_scale": "CLIP's learned temperature; the method's is fixed",
    "input_resolution": "a number, not a weight",
    "context_length": "a number, not a weight",
    "vocab_size": "a number, not a weight",
}


# Option of the release → field for `infer_tower_fields` or the configuration.
_OPTIONS = {"img_size": "image_size", "stride_size": "stride_size", "temperature": "temperature"}


class _OptionsLoader(yaml.SafeLoader):
    """Plain YAML, and tuples as Python's dumper writes them; any other tag is refused."""

    def construct_tuple(self, node: yaml.SequenceNode) -> list[Any]:
        """A tuple as a list."""
        return self.construct_sequence(node, deep=True)


_OptionsLoader.add_constructor("tag:yaml.org,2002:python/tuple", _OptionsLoader.construct_tuple)


def official_options(checkpoint: Path) -> dict[str, Any]:
    """What the release's `configs.yaml` beside a checkpoint says and its tensors do not: image size, stride, temperature.

    Args:
        checkpoint: The checkpoint's file.

    Returns:
        Fields as in `infer_config`; empty without such a file.

    Raises:
        CheckpointError: If there is one that cannot be read.
    """
    file = checkpoint.parent / "configs.yaml"
    if not file.is_file():
        return {}
    try:
        options = yaml.load(file.read_text(encoding="utf-8"), _OptionsLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file}, the options of {checkpoint.name}, cannot be read: {reason}") from error
    if not isinstance(options, dict):
        raise CheckpointError(f"{file}, the options of {checkpoint.name}, holds no fields.")
    return {field: options[name] for name, field in _OPTIONS.items() if options.get(name) is not None}


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, which is removed."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def leftover_reason(key: str) -> str | None:
    """Why an official key of the towers is not needed, `None` if it is."""
    return _CLIP_LEFTOVERS.get(key.removeprefix(BASE))


def convert_towers(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """`base_model.*` → keys of [`CLIPDualEncoderModel`] below `prefix`.

    Every rule is linear, so a dictionary of official gradients converts as well.

    Raises:
        CheckpointError: For a key that CLIP's towers do not have.
    """
    base = {key: value for key, value in part(state, BASE).items() if key not in _CLIP_LEFTOVERS}
    visual = part(base, "visual.")
    text = {key: value for key, value in base.items() if not key.startswith("visual.")}
    projections = {
        f"{prefix}visual_projection.weight": visual.pop("proj", None),
        f"{prefix}text_projection.weight": text.pop("text_projection", None),
    }
    converted = {key: value.T.contiguous() for key, value in projections.items() if value is not None}
    for tower, weights in (
        ("vision_model", convert_openai_clip_vision(visual)),
        ("text_model", convert_openai_clip_text(text)),
    ):
        converted |= {f"{prefix}{tower}.{key}": value for key, value in weights.items()}
    return converted


def convert_cross_modal_branch(
    state: Mapping[str, Tensor],
    prefix: str,
    *,
    attention: str,
    blocks: str,
    query_norm: str,
    memory_norm: str,
    post: str,
) -> dict[str, Tensor]:
    """The official branch → keys of [`CrossModalEncoder`] below `prefix`.

    Args:
        state: The branch's tensors under their official names.
        prefix: Where the encoder stands in our model.
        attention: Official name of the cross attention.
        blocks: Official name of the transformer behind it.
        query_norm: Official name of the queries' layer norm.
        memory_norm: Official name of the keys' and values' layer norm.
        post: Official name of the last layer norm.

    Raises:
        CheckpointError: For a key that the branch does not have.
    """
    block = re.escape(blocks) + r"\.resblocks\.(\d+)\."
    return rename(
        state,
        {
            re.escape(query_norm) + r"\.(weight|bias)": prefix + r"query_layer_norm.\1",
            re.escape(memory_norm) + r"\.(weight|bias)": prefix + r"memory_layer_norm.\1",
            re.escape(post) + r"\.(weight|bias)": prefix + r"post_layernorm.\1",
            re.escape(attention) + r"\.in_proj_(weight|bias)": prefix + r"cross_attn.in_proj.\1",
            re.escape(attention) + r"\.out_proj\.(weight|bias)": prefix + r"cross_attn.out_proj.\1",
            block + r"ln_([12])\.(weight|bias)": prefix + r"layers.\1.layer_norm\2.\3",
            block + r"attn\.in_proj_(weight|bias)": prefix + r"layers.\1.self_attn.in_proj.\2",
            block + r"attn\.out_proj\.(weight|bias)": prefix + r"layers.\1.self_attn.out_proj.\2",
            block + r"mlp\.c_fc\.(weight|bias)": prefix + r"layers.\1.mlp.fc1.\2",
            block + r"mlp\.c_proj\.(weight|bias)": prefix + r"layers.\1.mlp.fc2.\2",
        },
        "cross-modal branch",
    )


def infer_branch_layers(state: Mapping[str, Tensor], blocks: str) -> int:
    """Number of blocks of a branch."""
    pattern = re.compile(re.escape(blocks) + r"\.resblocks\.(\d+)\.")
    return len({match[1] for key in state if (match := pattern.match(key))})


def infer_tower_fields(state: Mapping[str, Tensor], overrides: dict[str, Any]) -> dict[str, Any]:
    """`vision_config`, `text_config`, `projection_dim` and, from the classifier, `num_classes`.

    Args:
        state: Official tensors without `module.`.
        overrides: Its entries `image_size`, `stride_size`, `vision_num_attention_heads`, `text_num_attention_heads`,
            `vision_config` and `text_config` are taken out and used.

    Raises:
        CheckpointError: If a size can neither be inferred nor was given; it is named.
    """
    base = part(state, BASE)
    for key in ("visual.proj", "text_projection"):
        if key not in base:
            raise CheckpointError(f"the checkpoint lacks {BASE}{key}.")
    visual = convert_openai_clip_vision(part(base, "visual."))
    text = convert_openai_clip_text(
        {
            key: value
            for key, value in base.items()
            if not key.startswith("visual.") and key != "text_projection" and key not in _CLIP_LEFTOVERS
        }
    )
    sizes = infer_vision_sizes(visual)
    num_positions, patch = sizes["num_positions"], sizes["patch_size"]
    image_size, stride = overrides.pop("image_size", None), overrides.get("stride_size")
    if image_size is None:
        rows, columns = _RELEASED_GRID
        if num_positions != 1 + rows * columns or stride not in (None, patch):
            raise CheckpointError(
                f"the checkpoint does not tell its image size (it has {num_positions - 1} patches of {patch} pixels): give "
                "image_size=[height, width], and stride_size if patches overlap."
            )
        image_size = [rows * patch, columns * patch]
    inferred: dict[str, Any] = {
        **describe_towers(visual, text, list(image_size), overrides),
        "projection_dim": base["text_projection"].shape[1],
    }
    if "classifier.weight" in state:
        inferred["num_classes"] = state["classifier.weight"].shape[0]
    return inferred


def describe_towers(
    vision: Mapping[str, Tensor], text: Mapping[str, Tensor], image_size: list[int], overrides: dict[str, Any]
) -> dict[str, Any]:
    """`vision_config` and `text_config` of two converted towers.

    Args:
        vision: Weights of [`VisionTransformer`].
        text: Weights of [`CLIPTextTransformer`].
        image_size: `[height, width]` in pixels.
        overrides: As in `infer_tower_fields`, its entries but `image_size` are taken out and used.
    """
    vision_fields, text_fields = infer_vision_sizes(vision), infer_clip_text_sizes(text)
    del vision_fields["num_positions"]
    for fields, name in ((vision_fields, "vision"), (text_fields, "text")):
        usual = max(fields["hidden_size"] // _HEAD_WIDTH, 1)
        fields["num_attention_heads"] = int(overrides.pop(f"{name}_num_attention_heads", usual))
    stride = overrides.pop("stride_size", None)
    vision_fields |= {
        "image_size": image_size,
        "patch_stride": None if stride == vision_fields["patch_size"] else stride,
    }
    return {
        "vision_config": {**vision_fields, **overrides.pop("vision_config", {})},
        "text_config": {**text_fields, **overrides.pop("text_config", {})},
    }
