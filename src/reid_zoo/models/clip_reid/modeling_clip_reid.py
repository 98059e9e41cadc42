"""CLIP-ReID: image re-identification that learns a prompt for every training identity.

S. Li, L. Sun, Q. Li, CLIP-ReID: Exploiting Vision-Language Model for Image Re-identification without Concrete Text Labels,
AAAI 2023. Equation numbers are the paper's. Stage one learns the words of the prompts against frozen towers; stage two
trains the image tower against the fixed text features of all identities. Retrieval uses images only.

Symbols: B images, D width of the image tower, E joint dimension, N training identities.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from ...distributed import JointBatchMixin
from ...errors import ConfigurationError, QueryError
from ...losses import BatchHardTripletLoss, SupervisedContrastiveLoss
from ...outputs import ReIDTrainingOutput, RetrievalFeatures, RetrievalOutput
from ...precision import full_precision
from ..base import ReIDPreTrainedModel
from ..encoders.clip_loading import load_clip_text_tower
from ..encoders.clip_resnet import CLIPResNet
from ..encoders.clip_resnet_loading import load_clip_resnet
from ..encoders.clip_text_transformer import CLIPTextTransformer
from ..encoders.tower_loading import load_image_tower
from ..encoders.vision_transformer import VisionTransformer
from .configuration_clip_reid import CLIPReIDConfig
from .prompts_clip_reid import PromptLearner, prompt_template_ids

__all__ = ["CLIPReIDForTraining", "CLIPReIDModel", "CLIPReIDPreTrainedModel"]

_CLASSIFIER_STD = 0.001
_SIDE_INFORMATION_STD = 0.02
_PROMPTS_AT_A_TIME = 256


@dataclass(slots=True)
class ImageStates:
    """The three features of every image (spec section 2.6), none of them normalised, and the tower's tokens.

    Attributes:
        feat_last: `(B, D')` of the layer before the last one (the official name): triplet loss only.
        feat: `(B, D)` of the last layer.
        feat_proj: `(B, E)` in the joint space with texts.
        tokens: `(B, L, D)` of the last layer; a ResNet's have no class token. `None` where they are not computed.
    """

    feat_last: Tensor
    feat: Tensor
    feat_proj: Tensor
    tokens: Tensor | None


def _forget_class_text_features(model: Any, keys: Any) -> None:
    model.class_text_features = None


class CLIPReIDPreTrainedModel(ReIDPreTrainedModel):
    """Base of the two CLIP-ReID classes."""

    config_class = CLIPReIDConfig
    config: CLIPReIDConfig
    base_model_prefix = "clip_reid"
    input_modalities: ClassVar[tuple[str, ...]] = ("image",)
    supports_text: ClassVar[bool] = False
    position_grid_align_corners: ClassVar[bool] = False  # spec section 2.3
    _no_split_modules: ClassVar[list[str]] = [*ReIDPreTrainedModel._no_split_modules, "Bottleneck"]
    # What only training needs; the inference class drops it without a warning.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^classifier\.",
        r"^classifier_proj\.",
        r"^prompt_learner\.",
        r"^text_model\.",
        r"^text_projection\.",
    ]

    def __init__(self, config: CLIPReIDConfig) -> None:
        super().__init__(config)
        # Recomputing a ResNet's forward pass would update its batch norms twice.
        self.supports_gradient_checkpointing = config.backbone != "rn50"

    @property
    def vision_tower(self) -> VisionTransformer | CLIPResNet:
        """The image tower."""
        return next(module for module in self.modules() if isinstance(module, VisionTransformer | CLIPResNet))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PromptLearner):  # spec section 4; CLIP's words are taken over by from_towers
            init.normal_(module.context, std=self.config.context_initializer_range)
            for words in (module.token_prefix, module.token_suffix):
                init.normal_(words, std=self.config.text_config.initializer_range)
        elif isinstance(module, CLIPReIDModel):
            if module.visual_projection is not None:
                init.normal_(module.visual_projection.weight, std=self.config.hidden_size**-0.5)
            if module.side_information is not None:
                init.trunc_normal_(module.side_information, std=_SIDE_INFORMATION_STD)
        elif isinstance(module, CLIPReIDForTraining):
            for classifier in (module.classifier, module.classifier_proj):
                init.normal_(classifier.weight, std=_CLASSIFIER_STD)  # spec section 3
            if module.text_projection is not None:
                init.normal_(module.text_projection.weight, std=self.config.text_config.hidden_size**-0.5)

    @classmethod
    def from_towers(
        cls,
        image_tower: str | os.PathLike[str],
        text_tower: str | os.PathLike[str] | None = None,
        *,
        image_size: int | tuple[int, int] | None = None,
        preset: str | None = None,
        **config_fields: Any,
    ) -> Self:
        """A model whose towers and projections come from a published CLIP; everything else is newly initialised.

        The fixed words of the prompts are CLIP's. Class identities (`num_classes`) are the caller's.

        Args:
            image_tower: A CLIP: folder or Hub id of transformers or open_clip, or a file; see [`load_image_tower`], and
                [`load_clip_resnet`] for `backbone="rn50"`.
            text_tower: The same CLIP (default), or another one whose text tower is taken instead. Only the training class
                has one, unless it is a baseline.
            image_size: `(height, width)` in pixels, or one number for a square; the position grid is resampled to it.
                By default the method's own, 256 × 128.
            preset: Named preset for the fields that the towers leave open.
            config_fields: Fields of the configuration. `vision_config` and `text_config` as dictionaries change single
                fields of a tower, such as `{"patch_stride": 12}`.

        Raises:
            CheckpointError: If a tower cannot be read.
            ConfigurationError: For a field that is unknown or does not fit the others.
        """
        fields = cls.config_class.preset_fields(preset) if preset is not None else {}
        preset_vision = fields.pop("vision_config", {})
        fields.pop("text_config", None)
        vision_fields = {
            **{name: value for name, value in preset_vision.items() if name in ("image_size", "patch_stride")},
            **dict(config_fields.pop("vision_config", {})),
        }
        text_fields = dict(config_fields.pop("text_config", {}))
        if image_size is not None:
            vision_fields["image_size"] = image_size
        vision_fields.setdefault("image_size", [256, 128])
        fields |= config_fields
        if fields.get("backbone", "vit_b16") == "rn50":
            resnet = load_clip_resnet(image_tower, **vision_fields)
            vision_config, vision_state, output_size = resnet.config, resnet.state, resnet.output_size
        else:
            image = load_image_tower(image_tower, align_corners=cls.position_grid_align_corners, **vision_fields)
            vision_config, vision_state, output_size = image.config, image.state, None
        text = load_clip_text_tower(text_tower or image_tower, **text_fields)
        projection = load_clip_text_tower(image_tower).visual_projection if output_size is None else None
        fields.setdefault("projection_dim", output_size if projection is None else len(projection))
        model = cls(cls.config_class(vision_config=vision_config, text_config=text.config, **fields))
        inner = next(module for module in model.modules() if isinstance(module, CLIPReIDModel))
        inner.vision_model.load_state_dict(vision_state)
        with torch.no_grad():
            if projection is not None and inner.visual_projection is not None:
                inner.visual_projection.weight.copy_(projection)
            if isinstance(model, CLIPReIDForTraining) and model.config.uses_text:
                model.take_text_tower(text.state, text.text_projection)
        return model.eval()


class CLIPReIDModel(CLIPReIDPreTrainedModel):
    """CLIP-ReID for inference: the image tower, side information and batch norms.

    Example:
        >>> model = CLIPReIDModel.from_pretrained("org/clip-reid-market1501")
        >>> queries = model.get_image_features(**processor(images=queries, return_tensors="pt"))
        >>> gallery = model.get_image_features(**processor(images=photos, return_tensors="pt"))
        >>> scores = model.similarity(queries, gallery)  # (num_queries, num_photos)
    """

    def __init__(self, config: CLIPReIDConfig) -> None:
        super().__init__(config)
        width, joint = config.hidden_size, config.projection_dim
        assert joint is not None
        if config.backbone == "rn50":
            self.vision_model: VisionTransformer | CLIPResNet = CLIPResNet._from_config(
                config.vision_config, output_size=joint
            )
            self.visual_projection = None
        else:
            self.vision_model = VisionTransformer._from_config(config.vision_config)
            self.visual_projection = nn.Linear(width, joint, bias=False)
        self.side_information = (
            nn.Parameter(torch.empty(config.num_side_information_rows, width)) if config.uses_side_information else None
        )
        self.bottleneck = nn.BatchNorm1d(width)
        self.bottleneck_proj = nn.BatchNorm1d(joint)
        self.post_init()
        self.freeze_constants()

    def freeze_constants(self) -> None:
        """The batch norms' biases are never trained (spec section 3)."""
        for neck in (self.bottleneck, self.bottleneck_proj):
            neck.bias.requires_grad_(False)

    def _side_information(self, count: int, camera_ids: Tensor | None, view_ids: Tensor | None) -> Tensor | None:
        """What is added to the tokens of every image: `(B, 1 or 2, D)` (spec section 2.4)."""
        config = self.config
        if self.side_information is None:
            return None
        wanted = {
            name: (ids, limit)
            for name, ids, limit, used in (
                ("camera_ids", camera_ids, config.num_cameras, config.sie_camera),
                ("view_ids", view_ids, config.num_views, config.sie_view),
            )
            if used
        }
        missing = [name for name, (ids, _) in wanted.items() if ids is None]
        if len(missing) == len(wanted):
            return None  # without any label the release leaves the side information out
        if missing:
            raise ConfigurationError(f"the model needs {missing[0]} beside the other labels, or none of them.")
        rows = torch.zeros(count, dtype=torch.long, device=self.side_information.device)
        for name, (ids, limit) in wanted.items():
            assert ids is not None
            ids = ids.to(rows.device)
            if ids.shape != rows.shape:
                raise ConfigurationError(f"{name} have shape {tuple(ids.shape)}, but there are {count} images.")
            if not torch.compiler.is_compiling():  # a graph cannot depend on values
                wrong = ids[(ids < 0) | (ids >= limit)]
                if len(wrong):
                    raise ConfigurationError(
                        f"{name} hold {int(wrong[0])}, but the model was trained with 0…{limit - 1}."
                    )
            rows = rows * limit + ids
        embedded = config.sie_coef * self.side_information[rows][:, None]
        return embedded if config.sie_tokens == "cls" else embedded.expand(-1, 2, -1)

    def image_states(
        self,
        pixel_values: Tensor,
        camera_ids: Tensor | None = None,
        view_ids: Tensor | None = None,
        *,
        with_tokens: bool = True,
    ) -> ImageStates:
        """The three features of images; arguments as of `get_image_features`.

        Without tokens a transformer's last block is computed for the class token alone.
        """
        if isinstance(self.vision_model, CLIPResNet):
            maps = self.vision_model(pixel_values)
            return ImageStates(
                feat_last=maps.penultimate_map.mean(dim=(2, 3)),
                feat=maps.last_map.mean(dim=(2, 3)),
                feat_proj=maps.pooled,
                tokens=maps.last_map.flatten(2).transpose(1, 2),
            )
        assert self.visual_projection is not None
        encoded = self.vision_model(
            pixel_values,
            side_information=self._side_information(len(pixel_values), camera_ids, view_ids),
            class_token_only=not with_tokens,
        )
        return ImageStates(
            feat_last=encoded.penultimate_state[:, 0],  # no layer norm
            feat=encoded.last_hidden_state[:, 0],
            feat_proj=self.visual_projection(encoded.last_hidden_state[:, 0]),
            tokens=encoded.last_hidden_state if with_tokens else None,
        )

    def features(self, states: ImageStates, necks: tuple[Tensor, Tensor] | None = None) -> RetrievalFeatures:
        """What retrieval uses of the features of images.

        Args:
            states: Of `image_states`.
            necks: The batch-normalised features, if they are known already; only read with `neck_feature="after"`.
        """
        parts = states.feat, states.feat_proj
        if self.config.neck_feature == "after":
            parts = necks or (self.bottleneck(states.feat), self.bottleneck_proj(states.feat_proj))
        return RetrievalFeatures(
            embeds=functional.normalize(torch.cat(parts, dim=1), dim=1),  # the whole, not each half
            granularities={"feat_last": states.feat_last, "feat": states.feat, "feat_proj": states.feat_proj},
            tokens=states.tokens,
        )

    def get_image_features(
        self, pixel_values: Tensor, camera_ids: Tensor | None = None, view_ids: Tensor | None = None, **kwargs: Any
    ) -> RetrievalFeatures:
        """Features of images.

        Args:
            pixel_values: `(B, 3, H, W)` from the processor.
            camera_ids: `(B,)` cameras, 0…num_cameras-1, for a model with `sie_camera`; without them no side information
                is added. Passed over by a model without.
            view_ids: `(B,)` likewise, for `sie_view`.
            kwargs: Other keys of a processor's output are not needed and passed over.

        Returns:
            `embeds` `(B, D+E)` of unit length, whose dot products rank as the distances of the paper; the granularities
            `feat_last`, `feat` and `feat_proj` before any normalisation; tokens `(B, L, D)`.

        Raises:
            ConfigurationError: If an id is out of range, or only one of two needed labels is given.
        """
        return self.features(self.image_states(pixel_values, camera_ids, view_ids))

    def get_text_features(self, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """CLIP-ReID takes images only.

        Raises:
            QueryError: Always.
        """
        raise QueryError("CLIP-ReID finds persons by image only; its prompts stand for training identities.")

    def forward(
        self, pixel_values: Tensor, camera_ids: Tensor | None = None, view_ids: Tensor | None = None
    ) -> RetrievalOutput:
        """Features of images; arguments as of `get_image_features`."""
        return RetrievalOutput(image_features=self.get_image_features(pixel_values, camera_ids, view_ids))


class CLIPReIDForTraining(JointBatchMixin, CLIPReIDPreTrainedModel):
    """CLIP-ReID with what only training needs: classifiers, prompts, the text tower and the losses.

    `set_training_stage(1)` trains the prompts, `set_training_stage(2)` (the state after construction) everything else.
    """

    class_text_features: Tensor | None

    def __init__(self, config: CLIPReIDConfig) -> None:
        super().__init__(config)
        width, joint = config.hidden_size, config.projection_dim
        assert joint is not None
        self.clip_reid = CLIPReIDModel(config)
        self.classifier = nn.Linear(width, config.num_classes, bias=False)
        self.classifier_proj = nn.Linear(joint, config.num_classes, bias=False)
        self.prompt_learner = PromptLearner(config) if config.uses_text else None
        self.text_model = (
            CLIPTextTransformer._from_config(config.text_config, token_embedding=False) if config.uses_text else None
        )
        self.text_projection = (
            nn.Linear(config.text_config.hidden_size, joint, bias=False) if config.uses_text else None
        )
        self.contrastive_loss = SupervisedContrastiveLoss()
        self.triplet_loss = BatchHardTripletLoss(config.triplet_margin)
        # Of the prompts as they are: forgotten with every change of stage and with new weights.
        self.register_buffer("class_text_features", None, persistent=False)
        self.register_load_state_dict_post_hook(_forget_class_text_features)
        self.training_stage = 2
        self.post_init()
        self.freeze_constants()

    def set_training_stage(self, stage: int) -> None:
        """Say what is trained from now on.

        Args:
            stage: 1: the words of the prompts only (spec section 5); 2: everything but the prompts and the text tower
                (spec section 6); with `training_mode="one_stage"` the prompts too.

        Raises:
            ConfigurationError: For another number, or stage 1 of a model that does not have it.
        """
        if stage not in (1, 2):
            raise ConfigurationError(f"the training stage is {stage}, but must be 1 or 2.")
        if stage == 1 and self.config.training_mode != "two_stage":
            raise ConfigurationError(
                f"training_mode={self.config.training_mode!r} has no stage 1; only 'two_stage' has one."
            )
        self.training_stage = stage
        self.class_text_features = None
        self.freeze_constants()

    def freeze_constants(self) -> None:
        """Gradients only where the stage trains something."""
        prompts = self.prompt_learner
        for parameter in self.parameters():
            parameter.requires_grad_(self.training_stage == 2)
        self.clip_reid.freeze_constants()
        for frozen in (self.text_model, self.text_projection):
            if frozen is not None:
                frozen.requires_grad_(False)
        if prompts is not None:
            prompts.requires_grad_(self.training_stage == 1 or self.config.training_mode == "one_stage")

    @torch.no_grad()
    def take_text_tower(self, state: dict[str, Tensor], text_projection: Tensor) -> None:
        """Take CLIP's text tower, and from its token embeddings the fixed words of the prompts.

        Args:
            state: Weights of [`CLIPTextTransformer`], token embeddings included.
            text_projection: `(E, W)`.

        Raises:
            ConfigurationError: If the model has no text tower, or the widths differ.
        """
        if self.text_model is None or self.text_projection is None or self.prompt_learner is None:
            raise ConfigurationError("a baseline has no text tower.")
        if text_projection.shape != self.text_projection.weight.shape:
            raise ConfigurationError(
                f"the text tower projects to {len(text_projection)} numbers, the image tower to "
                f"{self.config.projection_dim}; take two CLIPs of the same width."
            )
        words = state["token_embedding.weight"]
        self.text_model.load_state_dict(
            {key: value for key, value in state.items() if not key.startswith("token_embedding.")}
        )
        self.text_projection.weight.copy_(text_projection)
        ids = prompt_template_ids(self.config)[0]
        if int(ids.max()) >= len(words):
            raise ConfigurationError(
                f"the text tower has {len(words)} token embeddings, but the prompts need CLIP's vocabulary of 49408."
            )
        self.prompt_learner.set_template(words[ids])

    def prompt_features(self, labels: Tensor) -> Tensor:
        """Text features of the prompts of `(n,)` identities: `(n, E)`, not normalised (spec section 4)."""
        if self.prompt_learner is None or self.text_model is None or self.text_projection is None:
            raise ConfigurationError("a baseline has no prompts.")
        # No token sees what comes behind it, so everything behind the end-of-text token can be left out.
        prompts = self.prompt_learner(labels)[:, : self.config.end_position + 1]
        return self.text_projection(self.text_model(inputs_embeds=prompts).last_hidden_state[:, -1])

    @torch.no_grad()
    def compute_class_text_features(self) -> Tensor:
        """Text features of all identities, which stage two takes as constants: `(N, E)` in float32; kept until the next stage.

        Done by `forward` when they are first needed.
        """
        labels = torch.arange(self.config.num_classes, device=self.device)
        parts = [self.prompt_features(part).float() for part in labels.split(_PROMPTS_AT_A_TIME)]
        self.class_text_features = torch.cat(parts)
        return self.class_text_features

    def get_image_features(self, pixel_values: Tensor, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`CLIPReIDModel.get_image_features`]."""
        return self.clip_reid.get_image_features(pixel_values, *args, **kwargs)

    def get_text_features(self, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`CLIPReIDModel.get_text_features`]."""
        return self.clip_reid.get_text_features(*args, **kwargs)

    @torch.no_grad()
    def stage_one_image_features(self, pixel_values: Tensor) -> Tensor:
        """What stage one learns prompts for: `(B, 3, H, W)` images → `(B, E)` in float32.

        The tower is in evaluation mode whatever the model is in, and there is no side information (spec section 5).
        """
        was_training = self.clip_reid.training
        self.clip_reid.eval()
        try:
            return self.clip_reid.image_states(pixel_values, with_tokens=False).feat_proj.float()
        finally:
            self.clip_reid.train(was_training)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        person_labels: Tensor | None = None,
        camera_ids: Tensor | None = None,
        view_ids: Tensor | None = None,
        image_features: Tensor | None = None,
    ) -> ReIDTrainingOutput:
        """Loss of a batch of images, in the stage that is being trained.

        Args:
            pixel_values: `(B, 3, H, W)`.
            person_labels: `(B,)` identities, 0…N-1.
            camera_ids: `(B,)`, see [`CLIPReIDModel.get_image_features`]; not used in stage one.
            view_ids: `(B,)` likewise.
            image_features: `(B, E)` of `stage_one_image_features`, in place of pixels; stage one only.

        Returns:
            The total loss and its terms without their weights. Stage one: `i2t` and `t2i`. Stage two: `id` (two
            classifiers), `triplet` (three features), each summed, and the text terms; the `logits` of the classifiers
            `feat` and `feat_proj` and, for `"i2t"`, of the `text` features; the accuracy `id` of the last of these.

        Raises:
            ConfigurationError: If an input is missing that the stage needs.
        """
        if person_labels is None or (pixel_values is None and (self.training_stage == 2 or image_features is None)):
            raise ConfigurationError("CLIP-ReID needs person_labels and pixel_values (stage one: or image_features).")
        if self.training_stage == 1:
            if image_features is None:
                assert pixel_values is not None
                image_features = self.stage_one_image_features(pixel_values)
            return self._stage_one(image_features, person_labels)
        if image_features is not None:
            raise ConfigurationError("image_features are for stage one; stage two trains the image tower on pixels.")
        assert pixel_values is not None
        return self._stage_two(pixel_values, person_labels, camera_ids, view_ids)

    def _stage_one(self, image_features: Tensor, labels: Tensor) -> ReIDTrainingOutput:
        texts = self.prompt_features(labels).float()
        images, texts, labels = self.gather_batch(image_features.float(), texts, labels)
        image_to_text, text_to_image = self.contrastive_loss.directions(images, texts, labels)
        terms = {"i2t": image_to_text, "t2i": text_to_image}  # Eqs. 2 and 4
        return ReIDTrainingOutput(loss=image_to_text + text_to_image, loss_terms=terms)  # Eq. 3

    def _stage_two(
        self, pixel_values: Tensor, labels: Tensor, camera_ids: Tensor | None, view_ids: Tensor | None
    ) -> ReIDTrainingOutput:
        config, inner = self.config, self.clip_reid
        states = inner.image_states(pixel_values, camera_ids, view_ids, with_tokens=False)
        necks = inner.bottleneck(states.feat), inner.bottleneck_proj(states.feat_proj)
        own_labels = labels
        *features, neck, neck_proj, labels = self.gather_batch(
            states.feat_last.float(), states.feat.float(), states.feat_proj.float(), *necks, labels
        )
        logits = {"feat": self.classifier(neck).float(), "feat_proj": self.classifier_proj(neck_proj).float()}
        image = features[-1]

        terms = {
            "id": self._classify(logits["feat"], labels) + self._classify(logits["feat_proj"], labels),  # Eq. 6
            "triplet": torch.stack([self.triplet_loss(feature, labels) for feature in features]).sum(),  # Eq. 7
        }
        assert config.text_loss_terms is not None and config.id_loss_weight is not None
        weights = {"id": config.id_loss_weight, "triplet": config.triplet_loss_weight}
        if "i2t" in config.text_loss_terms:  # Eq. 8
            texts = self.class_text_features
            if texts is None:
                texts = self.compute_class_text_features()
            with full_precision(image.device):
                logits["text"] = image @ texts.T
            terms["i2t"] = self._classify(logits["text"], labels)
        if len(config.text_loss_terms) > ("i2t" in config.text_loss_terms):
            one_stage = config.training_mode == "one_stage"
            if one_stage:  # every process encodes the prompts of its own images
                (of_batch,) = self.gather_batch(self.prompt_features(own_labels).float())
            else:
                of_batch = self._fixed_text_features(labels)
            directions = dict(
                zip(
                    ("i2t_in_batch", "t2i_in_batch"),
                    self.contrastive_loss.directions(image, of_batch, labels),
                    strict=True,
                )
            )
            terms |= {name: directions[name] for name in config.text_loss_terms if name in directions}
        total = torch.stack([weights.get(name, config.i2t_loss_weight) * value for name, value in terms.items()]).sum()
        with torch.no_grad():
            told_by = logits.get("text", logits["feat"])
            accuracy = (told_by.argmax(dim=1) == labels).float().mean()
        return ReIDTrainingOutput(
            loss=total,
            loss_terms=terms,
            image_features=inner.features(states, necks),
            logits=logits,
            accuracies={"id": accuracy},
        )

    def _fixed_text_features(self, labels: Tensor) -> Tensor:
        texts = self.class_text_features
        return (self.compute_class_text_features() if texts is None else texts)[labels]

    def _classify(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
