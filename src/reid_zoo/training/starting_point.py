"""Starting a recipe's model from a trained model of the zoo, of the same method or of another one."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..auto import load_config
from ..errors import RecipeError
from ..models.configuration_base import check_fields, own_field_names
from ..models.encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from ..models.encoders.position_grid import resample_position_grid
from ..models.registry import get_method
from ..processing import ReIDProcessor
from .recipe import Recipe

__all__ = ["StartingPoint"]

_VISION, _TEXT = "vision_model.", "text_model."


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """A trained model that another one starts from.

    Attributes:
        name: Folder or Hub id.
        model: The model; with its training-only heads if it is of the same method as the one that starts.
        absent: Names of its weights that are not in the checkpoint, which held no training-only heads, say.
        processor: Its processor.
        takes_text: Whether the text tower and the tokenizer are taken too.
        fills_prompts: Whether the text tower is taken for prompts instead, by a method that reads no sentences.
    """

    name: str
    model: Any
    absent: frozenset[str]
    processor: ReIDProcessor
    takes_text: bool
    fills_prompts: bool

    @classmethod
    def read(cls, name: str, recipe: Recipe, draft: Any) -> StartingPoint:
        """Read the model that a recipe starts from.

        Args:
            name: Folder or Hub id.
            recipe: The recipe.
            draft: Configuration that the recipe would have from scratch; says which kinds of towers the method has.

        Raises:
            CheckpointError: If there is no model of the zoo, or no processor.
            RecipeError: If its towers are of another kind than the method's.
        """
        method, config = get_method(recipe.method), load_config(name)
        source = get_method(config.model_type)
        takes_text = draft.processor_defaults.tokenizer is not None or source is method
        towers = ["vision_config", *(["text_config"] if takes_text else [])]
        for tower in towers:
            wanted, found = (type(getattr(each, tower)).__name__ for each in (draft, config))
            if wanted != found:
                raise RecipeError(
                    f"recipe field model.start_from: {name} is a {config.model_type!r} model whose {tower} is a {found}, but "
                    f"{recipe.method} needs a {wanted} here; start from a model with the same kind of tower."
                )
        if takes_text and "text" not in source.queries and source is not method:
            raise RecipeError(
                f"recipe field model.start_from: {name} is a {config.model_type!r} model, which reads no sentences; "
                f"{recipe.method} needs a model that does."
            )
        reader = source.training_class if source is method else source.model_class
        processor = ReIDProcessor.from_pretrained(name)
        needs_mask = draft.processor_defaults.tokenizer == "clip_with_mask"
        if needs_mask and getattr(processor.tokenizer, "mask_token", None) is None:
            raise RecipeError(
                f"recipe field model.start_from: the tokenizer of {name} has no mask token, which {recipe.method} needs; start "
                "from a model of a method that masks words."
            )
        model, information = reader.from_pretrained(name, output_loading_info=True)
        model.refuse_missing_weights(name, information)
        absent = frozenset(information["missing_keys"])
        fills_prompts = (
            not takes_text
            and hasattr(method.training_class, "take_text_tower")
            and draft.uses_text
            and type(getattr(config, "text_config", None)) is type(draft.text_config)
            and config.text_config.vocab_size == ReIDCLIPTextConfig.vocab_size  # prompts are made of CLIP's words
            and isinstance(getattr(model, "text_projection", None), nn.Linear)
        )
        return cls(name, model, absent, processor, takes_text, fills_prompts)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer, where the text tower is taken; `None` otherwise."""
        return self.processor.tokenizer if self.takes_text else None

    def completed(self, recipe: Recipe) -> Recipe:
        """The recipe with the image size and the pixel statistics of this model, where it leaves them open."""
        given, images = recipe.processor, self.processor.image_processor
        filled = replace(
            given,
            image_size=given.image_size or self.processor.image_size,
            image_mean=given.image_mean or tuple(images.image_mean),
            image_std=given.image_std or tuple(images.image_std),
        )
        return replace(recipe, processor=filled)

    def config_fields(self, recipe: Recipe) -> dict[str, Any]:
        """Fields of the new model's configuration that follow from this one.

        All of them if it is of the same method; else the towers, and the width they are projected to. What the recipe says of
        the towers (a dropout, say) goes first.
        """
        config, settings = self.model.config, recipe.model
        names = own_field_names(type(config))
        if config.model_type != recipe.method:
            names &= own_field_names(get_method(recipe.method).config_class) & {"projection_dim"}
        fields = {name: getattr(config, name) for name in names}
        size = recipe.processor.image_size
        vision = {"image_size": list(size or self.processor.image_size), **settings.vision_config}
        fields["vision_config"] = _changed("vision_config", config.vision_config, vision)
        if self.takes_text or self.fills_prompts:
            fields["text_config"] = _changed("text_config", config.text_config, settings.text_config)
        return fields

    @torch.no_grad()
    def give_weights(self, model: Any) -> list[str]:
        """Copy every weight that the new model has under the same name and with the same shape.

        Args:
            model: The new model, of the configuration that `config_fields` made.

        Returns:
            Names of the weights that stay as they were initialised.

        Raises:
            RecipeError: If a tower is not taken whole, because the recipe changes its size.
        """
        own, given = _named_weights(model), _named_weights(self.model)
        absent = {name.removeprefix(f"{self.model.base_model_prefix}.") for name in self.absent}
        self._resample_position_grid(model, given)
        towers = (_VISION, _TEXT) if self.takes_text else (_VISION,)
        for name in sorted(own.keys() | given.keys() - absent):
            fits = name in own and name in given and own[name].shape == given[name].shape
            if name.startswith(towers) and name not in absent and not fits:
                shapes = [list(each[name].shape) if name in each else "nothing" for each in (given, own)]
                tower = "text_config" if name.startswith(_TEXT) else "vision_config"
                raise RecipeError(
                    f"recipe field model.start_from: {name} is {shapes[0]} in {self.name}, but {shapes[1]} in this recipe's "
                    f"model; leave the sizes in model.{tower} out (model.{tower}={{}} leaves out all)."
                )
        left = []
        for name, weight in own.items():
            taken = name in given and name not in absent and given[name].shape == weight.shape
            if taken and (self.takes_text or not name.startswith("text_")):
                weight.copy_(given[name])
            else:
                left.append(name)
        if self.fills_prompts:
            words = {name.removeprefix(_TEXT): value for name, value in given.items() if name.startswith(_TEXT)}
            model.take_text_tower(words, self.model.text_projection.weight)
            filled = ("text_", "prompt_learner.token_")
            left = [name for name in left if not name.startswith(filled)]
        return left

    def _resample_position_grid(self, model: Any, given: dict[str, Tensor]) -> None:
        """Bring the positions of this model's patches to the grid of the new one: another image size, or overlapping patches."""
        grids = [each.config.vision_config.grid_size for each in (self.model, model)]
        if grids[0] != grids[1]:
            name = next(name for name in given if name.startswith(_VISION) and name.endswith(".position_embedding"))
            given[name] = resample_position_grid(given[name], *grids, align_corners=model.position_grid_align_corners)


def _changed(tower: str, config: PreTrainedConfig, changes: dict[str, Any]) -> PreTrainedConfig:
    check_fields(tower, type(config), changes)
    changed = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _named_weights(model: Any) -> dict[str, Tensor]:
    """State dictionary under the names that the inference model gives, so that methods can be compared."""
    prefix = f"{model.base_model_prefix}."
    return {name.removeprefix(prefix): value for name, value in model.state_dict().items()}
