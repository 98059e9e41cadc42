"""Reading CLIP-ReID's official checkpoints: bare state dictionaries such as `ViT-B-16_60.pth` and `RN50_120.pth`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ..conversion_report import ConversionReport, naming_missing_weights
from ..encoders.clip_resnet_loading import convert_clip_resnet, infer_clip_resnet_sizes
from ..encoders.text_tower_weights import convert_openai_clip_text, infer_clip_text_sizes
from ..encoders.tower_weights import convert_openai_clip_vision, infer_vision_sizes, rename
from .configuration_clip_reid import CLIPReIDConfig

__all__ = ["SIGNATURE", "convert_checkpoint", "convert_state_dict", "infer_config"]

SIGNATURE = re.compile(r"(module\.)?image_encoder\..*")
"""A key that only CLIP-ReID's checkpoints have."""

_IMAGE, _TEXT, _PROMPTS = "image_encoder.", "text_encoder.", "prompt_learner."
_HEAD_WIDTH = 64
_PATCH = 16
# (height, width, stride) of the published settings: their numbers of positions are all different (spec section 2.3).
_PUBLISHED_SETTINGS = ((256, 128, 16), (256, 128, 12), (256, 256, 16), (256, 256, 12))


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _reason_to_leave_out(key: str, config: CLIPReIDConfig) -> str | None:
    """Why an official key is not needed; `None` if it is."""
    if key.startswith((_TEXT, _PROMPTS)) and not config.uses_text:
        return "the configuration is a baseline without text"
    if key == "cv_embed" and not config.uses_side_information:
        # With a ResNet the release makes the table and never uses it.
        return "the configuration has no side information (sie_camera, sie_view)"
    return None


def convert_state_dict(
    state: Mapping[str, Tensor], report: ConversionReport, *, config: CLIPReIDConfig
) -> dict[str, Tensor]:
    """Official keys (without `module.`) → keys of [`CLIPReIDForTraining`].

    Every rule is linear, so a dictionary of official gradients converts as well.

    Args:
        state: The network's tensors.
        report: Gets the keys that were left out, and why.
        config: Says which parts exist.

    Raises:
        CheckpointError: For a key that CLIP-ReID does not have.
    """
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        reason = _reason_to_leave_out(key, config)
        if reason is None:
            kept[key] = value
        else:
            report.leave_out(key, reason)
    image, text = _part(kept, _IMAGE), _part(kept, _TEXT)
    converted: dict[str, Tensor] = {}
    for name, projection in (
        ("clip_reid.visual_projection.weight", image.pop("proj", None)),
        ("text_projection.weight", text.pop("text_projection", None)),
    ):
        if projection is not None:
            converted[name] = projection.T.contiguous()
    tower = convert_clip_resnet(image) if config.backbone == "rn50" else convert_openai_clip_vision(image)
    converted |= {f"clip_reid.vision_model.{key}": value for key, value in tower.items()}
    converted |= {f"text_model.{key}": value for key, value in convert_openai_clip_text(text).items()}
    rest = {key: value for key, value in kept.items() if not key.startswith((_IMAGE, _TEXT))}
    return converted | rename(
        rest,
        {
            r"(classifier|classifier_proj)\.weight": r"\1.weight",
            r"(bottleneck|bottleneck_proj)\.(weight|bias|running_mean|running_var|num_batches_tracked)": r"clip_reid.\1.\2",
            r"cv_embed": "clip_reid.side_information",
            r"prompt_learner\.cls_ctx": "prompt_learner.context",
            r"prompt_learner\.(token_prefix|token_suffix)": r"prompt_learner.\1",
        },
        "CLIP-ReID checkpoint",
    )


def _infer_grid(num_positions: int, patch: int, overrides: dict[str, Any]) -> tuple[list[int], int]:
    """Image size and stride: given, or those of the one published setting with that many positions."""
    size, stride = overrides.pop("image_size", None), overrides.pop("stride_size", None)
    if size is not None:
        return list(size), stride or patch
    for height, width, of_setting in _PUBLISHED_SETTINGS:
        rows, columns = ((side - _PATCH) // of_setting + 1 for side in (height, width))
        if patch == _PATCH and num_positions == 1 + rows * columns and stride in (None, of_setting):
            return [height, width], of_setting
    raise CheckpointError(
        f"the checkpoint does not tell its image size (it has {num_positions - 1} positions): give image_size=[height, "
        "width], and stride_size if patches overlap."
    )


def _infer_side_information(rows: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """What a table of side information is for; its number of rows alone does not tell."""
    camera, view = overrides.get("sie_camera"), overrides.get("sie_view")
    if camera is None and view is None:
        raise CheckpointError(
            f"the checkpoint has side information of {rows} rows, but does not tell of what: give sie_camera=true, "
            "sie_view=true or both."
        )
    if not (camera and view):
        return {"num_cameras" if camera else "num_views": rows} if camera or view else {}
    cameras, views = overrides.get("num_cameras"), overrides.get("num_views")
    if cameras is None and views is None:
        raise CheckpointError(f"the checkpoint has {rows} rows of cameras × views: give num_cameras or num_views.")
    if cameras is None:
        cameras = rows // int(views or 1)
    return {"num_cameras": cameras, "num_views": views or rows // int(cameras)}


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> CLIPReIDConfig:
    """Configuration of a checkpoint: sizes and kind of training from its tensors, the rest from the release's defaults.

    Args:
        state: Official tensors without `module.`.
        overrides: Fields that shapes do not tell or that differ from the defaults. Beside fields of [`CLIPReIDConfig`]:
            `image_size` `[height, width]`, `stride_size`, `vision_num_attention_heads`, `text_num_attention_heads`.

    Raises:
        CheckpointError: If a size can neither be inferred nor was given; it is named.
    """
    overrides = dict(overrides)
    image, text = _part(state, _IMAGE), _part(state, _TEXT)
    is_resnet = any(key.startswith("attnpool.") for key in image)
    fields: dict[str, Any] = {"backbone": "rn50" if is_resnet else "vit_b16"}
    heads = overrides.pop("vision_num_attention_heads", None)
    if is_resnet:
        sizes = infer_clip_resnet_sizes(convert_clip_resnet(image))
        fields["projection_dim"] = sizes.pop("output_size")
        image_size, stride = _infer_grid(sizes.pop("num_positions"), _PATCH, overrides)
        if stride != _PATCH:
            raise CheckpointError(f"stride_size is {stride}, but a ResNet has no overlapping patches.")
        vision = {**sizes, "image_size": image_size, "num_attention_heads": heads}
    else:
        if "proj" not in image:
            raise CheckpointError(f"the checkpoint lacks {_IMAGE}proj.")
        fields["projection_dim"] = image["proj"].shape[1]
        sizes = infer_vision_sizes(convert_openai_clip_vision(image))
        patch = sizes["patch_size"]
        image_size, stride = _infer_grid(sizes.pop("num_positions"), patch, overrides)
        vision = {**sizes, "image_size": image_size, "patch_stride": None if stride == patch else stride}
        vision["num_attention_heads"] = heads or max(1, sizes["hidden_size"] // _HEAD_WIDTH)
    fields["vision_config"] = {**vision, **overrides.pop("vision_config", {})}
    text_overrides = overrides.pop("text_config", {})
    text_heads = overrides.pop("text_num_attention_heads", None)
    if text:
        # There is no table of token embeddings: prompts are made of embeddings.
        no_words = text["ln_final.weight"].new_empty(1, len(text["ln_final.weight"]))
        without_projection = {key: value for key, value in text.items() if key != "text_projection"}
        tower = convert_openai_clip_text({**without_projection, "token_embedding.weight": no_words})
        sizes = infer_clip_text_sizes(tower)
        sizes.pop("vocab_size")
        sizes["num_attention_heads"] = text_heads or max(1, sizes["hidden_size"] // _HEAD_WIDTH)
        fields["text_config"] = {**sizes, **text_overrides}
        fields["num_context_tokens"] = state[_PROMPTS + "cls_ctx"].shape[1]
    else:
        fields["training_mode"] = "baseline"
        if text_overrides:
            fields["text_config"] = text_overrides
    fields["num_classes"] = state["classifier.weight"].shape[0]
    if "cv_embed" in state and not is_resnet:
        fields |= _infer_side_information(state["cv_embed"].shape[0], overrides)
    return CLIPReIDConfig(**(fields | overrides))


def convert_checkpoint(
    content: Mapping[str, Any], **overrides: Any
) -> tuple[CLIPReIDConfig, dict[str, Tensor], ConversionReport]:
    """An official checkpoint as read from its file → configuration, weights of [`CLIPReIDForTraining`], report.

    Args:
        content: The file's dictionary, wrapped or bare, with or without `module.`, in any floating-point precision.
        overrides: See `infer_config`.
    """
    report = ConversionReport(method="clip_reid")
    state = report.read_network(content)
    with naming_missing_weights():
        config = infer_config(state, **overrides)
    converted = convert_state_dict(state, report, config=config)
    report.count_converted(state)
    return config, converted, report
