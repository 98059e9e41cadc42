"""Configuration of VFE-TPS: defaults, what is refused, what survives a file."""

from __future__ import annotations

import pytest

from reid_zoo.auto import ReIDConfig, load_config
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.vfe_tps.configuration_vfe_tps import LOSS_TERMS, VFETPSConfig


def test_defaults_are_the_papers_terms_with_the_releases_details():
    config = VFETPSConfig()
    assert config.vision_config.image_size == [384, 128]
    assert (config.projection_dim, config.embedding_size, config.max_text_length) == (512, 512, 77)
    assert (config.cross_modal_num_layers, config.cross_modal_num_attention_heads) == (4, 8)
    assert config.loss_terms == ["matching", "gvfc", "mim"]
    assert (config.matching_loss, config.gvfc_mode, config.gvfc_num_samples) == ("sdm", "sample", 20)
    assert (config.mim_guidance, config.mim_loss_weight, config.mask_ratio, config.mask_unit_size) == (
        "text",
        10.0,
        0.6,
        32,
    )
    assert (config.temperature, config.mask_token_id, config.caption_mask_prob) == (0.02, 49405, 0.0)


@pytest.mark.parametrize("term", LOSS_TERMS)
def test_every_term_can_stand_alone(term):
    assert VFETPSConfig(loss_terms=[term]).loss_terms == [term]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"loss_terms": []}, "loss_terms"),
        ({"loss_terms": ["matching", "matching"]}, "loss_terms"),
        ({"loss_terms": ["sdm"]}, "loss_terms"),
        ({"matching_loss": "cmpm"}, "matching_loss"),
        ({"gvfc_mode": "epoch"}, "gvfc_mode"),
        ({"mim_guidance": "simmim"}, "mim_guidance"),
        ({"mim_loss_form": "l2"}, "mim_loss_form"),
        ({"mask_mode": "noise"}, "mask_mode"),
        ({"gvfc_num_samples": 0}, "gvfc_num_samples"),
        ({"mim_loss_weight": -1}, "mim_loss_weight"),
        ({"id_loss_weight": -1}, "id_loss_weight"),
        ({"triplet_margin": -0.1}, "triplet_margin"),
        ({"mask_ratio": 1.1}, "mask_ratio"),
        ({"caption_mask_prob": -0.1}, "caption_mask_prob"),
        ({"sdm_soft_label_factor": 2.0}, "sdm_soft_label_factor"),
        ({"mask_token_id": 0}, "mask_token_id"),
        ({"temperature": 0.0}, "temperature"),
        ({"max_text_length": 100}, "max_text_length"),
        ({"mask_patch_size": 8}, "mask_patch_size is 8"),
        ({"mask_patch_size": 24}, "mask_patch_size is 24"),
        ({"mask_patch_size": 256}, "mask_patch_size is 256"),
        ({"mim_guidnce": "text"}, "did you mean 'mim_guidance'"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        VFETPSConfig(**fields)
    assert "\n" not in str(caught.value)


def test_overlapping_patches_and_odd_masks_are_fine_where_nothing_is_reconstructed():
    """The decoder needs patches that tile the image; a model without it does not."""
    overlapping = {"vision_config": {"patch_stride": 12}}
    with pytest.raises(ConfigurationError, match="leave 'mim' out of loss_terms"):
        VFETPSConfig(**overlapping)
    assert VFETPSConfig(**overlapping, loss_terms=["matching", "gvfc"]).vision_config.num_tokens == 311
    assert VFETPSConfig(mask_patch_size=24, loss_terms=["matching"]).mask_patch_size == 24


def test_mae_masks_single_patches():
    assert VFETPSConfig(mim_guidance="mae").mask_unit_size == 16
    assert VFETPSConfig(mim_guidance="mae", mask_patch_size=24).mask_unit_size == 16


def test_changed_from_the_default_survives_a_file(tmp_path):
    config = VFETPSConfig.from_preset(
        "tiny", loss_terms=["matching", "gi2id", "mim"], mim_guidance="image", caption_mask_prob=0.15, num_classes=5
    )
    config.save_pretrained(tmp_path)
    config.transformers_version = VFETPSConfig.from_pretrained(tmp_path).transformers_version  # only a file says it
    for load in (VFETPSConfig.from_pretrained, ReIDConfig.from_pretrained, load_config):
        again = load(tmp_path)
        assert type(again) is VFETPSConfig
        assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("name", VFETPSConfig.presets)
def test_presets_merge_single_fields_of_a_tower(name):
    config = VFETPSConfig.from_preset(name)
    changed = VFETPSConfig.from_preset(name, text_config={"num_hidden_layers": 1})
    assert changed.text_config.num_hidden_layers == 1
    assert changed.text_config.hidden_size == config.text_config.hidden_size
    assert VFETPSConfig.from_preset(name) == config  # the table itself is not touched


def test_preset_base_is_the_default():
    assert VFETPSConfig.from_preset("base") == VFETPSConfig()
