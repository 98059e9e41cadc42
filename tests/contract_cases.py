"""One line per model type and variant: what the shared test suite `tests/models/test_model_contract.py` runs on.

A new method gets the whole suite by a line in `CASES`: the fields of its configuration that the sizes below do not say.
Images, sentences, labels and a processor are made to fit the configuration.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BertConfig

from reid_zoo import ReIDProcessor
from reid_zoo.models.registry import METHODS, Method
from reid_zoo.training.vocabulary import learn_clip_tokenizer, learn_wordpiece_tokenizer

SENTENCES = (
    "a woman in a red coat with a black backpack",
    "a man in a blue jacket",
    "a green dress",
    "the man wears a red coat",
    "a woman with a white bag and a blue dress",
    "a black coat and a white bag",
)
BATCH = len(SENTENCES)
LABELS = torch.tensor([0, 1, 2, 0, 3, 1])
TEXT_LENGTH = 24
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_SIZES, "image_size": [32, 16], "patch_size": 8}
_TEXT = {**_SIZES, "max_position_embeddings": TEXT_LENGTH}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_FIELDS = {"max_text_length": TEXT_LENGTH, "num_classes": int(LABELS.max()) + 1, "projection_dim": 16}


@dataclass(frozen=True)
class ContractCase:
    """A tiny model of one method.

    Attributes:
        model_type: Method.
        variant: What is different from the method's default; empty for the default.
        fields: Fields of the configuration beside those that all cases share.
        loss_weights: Term → weight in the training loss, where a term that is missing is reported only. By default the
            loss is the plain sum of all terms.
        without_gradient: Part of a parameter's name → reason why training does not reach it.
    """

    model_type: str
    variant: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    loss_weights: Mapping[str, float] | None = None
    without_gradient: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model_type}-{self.variant}" if self.variant else self.model_type

    @property
    def method(self) -> Method:
        return METHODS[self.model_type]

    @property
    def has_text(self) -> bool:
        return bool(self.method.model_class.supports_text)

    @property
    def single_vector(self) -> bool:
        """Whether the score is a dot product of the embeddings, up to a factor."""
        return not self.method.model_class.scores_by_late_interaction


_CFINE = {"gld_num_attention_heads": 2, "image_token_ratio": 0.3, "num_positive_patches": 2}
_CFINE_LOSS = {"cmpm": 1, "cmpc": 1, "triplet": 10, "diversity_image": 0.2, "diversity_text": 0.2}
_CROSS = {"cross_modal_num_layers": 1, "cross_modal_num_attention_heads": 2}
_VFE_TPS = {**_CROSS, "mask_patch_size": 8, "gvfc_num_samples": 4}
_VFE_TPS_RELEASED = {"loss_terms": ["matching", "gi2id", "mim"], "mim_guidance": "image", "caption_mask_prob": 0.15}
_MGCC = {"max_words": 10}

_DUAL_BERT = {"text_encoder": "bert", "text_config": _NO_DROPOUT, "loss_terms": ["cmpm", "id"]}
_SIDE_INFORMATION = {"sie_camera": True, "num_cameras": 3, "sie_view": True, "num_views": 2}
_CLIP_REID_LOSS = {"id": 0.25, "triplet": 1, "i2t": 1}
_RESNET = {"backbone": "rn50", "vision_config": {"stem_width": 2, "layers": [1, 1, 1, 1], "image_size": [64, 32]}}

CASES = (
    ContractCase("cfine", "", _CFINE, _CFINE_LOSS),
    ContractCase("cfine", "sum", {**_CFINE, "gld_cls_init": "random", "similarity": "sum"}, _CFINE_LOSS),
    ContractCase("irra", "", _CROSS),
    ContractCase("vfe_tps", "", _VFE_TPS, {"matching": 1, "gvfc": 1, "mim": 10}),
    ContractCase("vfe_tps", "released", {**_VFE_TPS, **_VFE_TPS_RELEASED}, {"matching": 1, "gi2id": 1, "mim": 10}),
    ContractCase("mgcc", "", _MGCC, {"align": 1}),
    ContractCase("mgcc", "all-tokens", {**_MGCC, "token_selection": False}, {"align": 1}),
    ContractCase("mgcc", "plain", {**_MGCC, "learnable_fusion": False, "use_id_loss": True}, {"align": 1, "id": 1}),
    ContractCase("dual_encoder"),
    ContractCase("dual_encoder", "probe", {"training": "linear_probe", "loss_terms": ["sdm", "itc"]}),
    ContractCase("dual_encoder", "bert", _DUAL_BERT),
    ContractCase("clip_reid", "", {}, _CLIP_REID_LOSS),
    ContractCase("clip_reid", "sie-olp", {**_SIDE_INFORMATION, "vision_config": {"patch_stride": 4}}, _CLIP_REID_LOSS),
    ContractCase("clip_reid", "rn50-baseline", {**_RESNET, "training_mode": "baseline"}),
)


@functools.cache
def clip_tokenizer_of_the_sentences() -> Any:
    return learn_clip_tokenizer(SENTENCES, vocabulary_size=560)


def build_config(case: ContractCase) -> Any:
    """The case's configuration; towers' sizes and the like are those that all cases share unless it has others."""
    config_class = case.method.config_class
    fields = {name: value for name, value in _FIELDS.items() if name in config_class.__dataclass_fields__}
    fields |= dict(case.fields)
    vision = fields.get("vision_config", {})
    fields["vision_config"] = vision if "stem_width" in vision else {**_VISION, **vision}  # a ResNet has other sizes
    text_class = config_class.sub_configs_defaults.get("text_config")
    if text_class is not None:
        text = {**_TEXT, "vocab_size": len(clip_tokenizer_of_the_sentences())}
        fields["text_config"] = text | (_NO_DROPOUT if text_class is BertConfig else {}) | fields.get("text_config", {})
    return config_class(**fields)


def build_training_model(case: ContractCase) -> Any:
    """A new training model whose every weight matters: noise on top of the initialisation, also in running means."""
    torch.manual_seed(0)
    model = case.method.training_class(build_config(case))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def build_processor(case: ContractCase, config: Any) -> ReIDProcessor:
    """A processor of the configuration's image size and text tower, if there is one."""
    image_size = config.vision_config.image_size
    if not case.has_text:
        return ReIDProcessor.build(None, image_size=image_size)
    if isinstance(config.text_config, BertConfig):
        tokenizer = learn_wordpiece_tokenizer(SENTENCES, vocabulary_size=config.text_config.vocab_size)
        return ReIDProcessor.build(tokenizer, image_size=image_size, max_text_length=config.max_text_length)
    return ReIDProcessor.build_for_clip(
        clip_tokenizer_of_the_sentences(), image_size=image_size, max_text_length=config.max_text_length
    )


def photos(count: int = BATCH) -> list[Image.Image]:
    """Random pictures of 40 × 20 pixels."""
    values = torch.randint(0, 256, (count, 40, 20, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return [Image.fromarray(picture.numpy()) for picture in values]


@dataclass(frozen=True)
class BuiltCase:
    """A case with its model, its processor and a batch that fits; shared by all tests, which change copies only.

    Attributes:
        case: What was built.
        training: `XForTraining` in evaluation mode.
        processor: Processor.
        images: Arguments of `get_image_features`.
        texts: Arguments of `get_text_features`; empty if the method takes no text.
        folder: Where training model and processor are saved.
    """

    case: ContractCase
    training: Any
    processor: ReIDProcessor
    images: dict[str, torch.Tensor]
    texts: dict[str, torch.Tensor]
    folder: Path

    @property
    def method(self) -> Method:
        return self.case.method

    @property
    def model(self) -> Any:
        """`XModel`, the inference part of the training model."""
        return getattr(self.training, self.training.base_model_prefix)

    @property
    def inputs(self) -> dict[str, dict[str, torch.Tensor]]:
        """Modality → arguments of `get_<modality>_features`, for the modalities that the method takes."""
        return {"image": self.images} | ({"text": self.texts} if self.texts else {})

    @property
    def batch(self) -> dict[str, torch.Tensor]:
        """Arguments of the training model's `forward`."""
        return {**self.images, **self.texts, "person_labels": LABELS}


def build_case(case: ContractCase, folder: Path) -> BuiltCase:
    """Build the case's model and save it, with its processor, in `folder`."""
    training = build_training_model(case)
    processor = build_processor(case, training.config)
    generator = torch.Generator().manual_seed(2)
    height, width = training.config.vision_config.image_size
    images = {"pixel_values": torch.randn(BATCH, 3, height, width, generator=generator)}
    if training.config.uses_camera_ids:
        images["camera_ids"] = torch.randint(0, training.config.num_cameras, (BATCH,), generator=generator)
    if training.config.uses_view_ids:
        images["view_ids"] = torch.randint(0, training.config.num_views, (BATCH,), generator=generator)
    texts = dict(processor(text=list(SENTENCES))) if case.has_text else {}
    training.save_pretrained(folder)
    processor.save_pretrained(folder)
    return BuiltCase(case, training, processor, images, texts, folder)
