"""Configuration of MGCC: what follows from what, what is refused, and what survives a file."""

from __future__ import annotations

import math

import pytest

from reid_zoo.auto import ReIDConfig
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.mgcc.configuration_mgcc import MGCCConfig


def test_defaults_are_the_released_model_for_cuhk_pedes():
    config = MGCCConfig()
    assert (config.num_patches, config.num_image_tokens, config.num_text_tokens) == (49, 15, 10)
    assert (config.hidden_size, config.embedding_size, config.max_text_length) == (768, 768, 77)
    assert config.similarities == ["it", "pw", "pt", "iw"]
    assert config.logit_scale_init == math.log(100)
    assert MGCCConfig.from_preset("base") == config


@pytest.mark.parametrize(
    ("rho", "patches", "patches_of_16", "words"),
    [(0.1, 5, 20, 2), (0.2, 10, 39, 5), (0.3, 15, 59, 8), (0.4, 20, 78, 10), (0.5, 24, 98, 12)],
)
def test_counts_are_rounded_half_to_even(rho, patches, patches_of_16, words):
    config = MGCCConfig(rho_image=rho, rho_text=rho)
    assert (config.num_image_tokens, config.num_text_tokens) == (patches, words)
    assert MGCCConfig(rho_image=rho, vision_config={"patch_size": 16}).num_image_tokens == patches_of_16


def test_presets_have_the_papers_ratios():
    counts = {
        name: (config.num_image_tokens, config.num_text_tokens)
        for name in MGCCConfig.presets
        for config in [MGCCConfig.from_preset(name)]
    }
    assert (counts["base"], counts["base-icfg"], counts["base-rstp"]) == ((15, 10), (20, 12), (24, 12))


def test_counts_win_over_ratios():
    config = MGCCConfig(num_selected_patches=7, num_selected_words=3)
    assert (config.num_image_tokens, config.num_text_tokens) == (7, 3)


def test_without_selection_everything_is_compared():
    config = MGCCConfig(token_selection=False)
    assert (config.num_image_tokens, config.num_text_tokens) == (49, 76)
    assert MGCCConfig(token_selection=False, max_text_length=50).num_text_tokens == 49


@pytest.mark.parametrize(
    ("fields", "local"),
    [({}, True), ({"aggregation": "max_max"}, False), ({"use_pw": False}, False), ({"learnable_fusion": False}, False)],
)
def test_local_matrices_exist_where_they_are_used(fields, local):
    assert MGCCConfig(**fields).uses_local_matrix is local


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"aggregation": "sum_sum"}, "aggregation"),
        ({"text_word_alignment": "straight"}, "text_word_alignment"),
        ({"text_padding": "pad"}, "text_padding"),
        ({"loss_type": "triplet"}, "loss_type"),
        ({"loss_reduction": "max"}, "loss_reduction"),
        ({"softmax_temperature": 0}, "softmax_temperature"),
        ({"rank_margin": -0.1}, "rank_margin"),
        ({"id_loss_weight": -1.0}, "id_loss_weight"),
        ({"rho_image": 0.0}, "rho_image"),
        ({"rho_text": 1.5}, "rho_text"),
        ({"rho_image": 0.001}, "num_selected_patches.*rho_image"),
        ({"rho_text": 0.01}, "num_selected_words.*rho_text"),
        ({"num_selected_patches": 50}, "num_selected_patches.* 50.*between 1 and 49"),
        ({"num_selected_words": 26}, "num_selected_words.* 26.*between 1 and 25"),
        ({"token_selection": False, "num_selected_patches": 15}, "num_selected_patches is 15.*49"),
        ({"token_selection": False, "num_selected_words": 10}, "num_selected_words is 10.*76"),
        ({"use_it": False, "use_pw": False, "use_pt": False, "use_iw": False}, "use_it.*enable at least one"),
        ({"use_id_loss": True}, "num_classes"),
        ({"max_text_length": 78}, "max_text_length"),
        ({"max_text_length": 2}, "max_text_length"),
        ({"vision_config": {"image_size": [224, 10]}}, "image_size"),
        ({"max_words": 2.5}, "max_words"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        MGCCConfig(**fields)
    assert "\n" not in str(caught.value)


def test_a_typo_gets_a_suggestion():
    with pytest.raises(ConfigurationError, match="did you mean 'rho_image'"):
        MGCCConfig(rho_imag=0.4)


def test_changed_from_the_default_survives_a_file(tmp_path):
    config = MGCCConfig.from_preset(
        "base-icfg", aggregation="mean_max", use_iw=False, text_padding="mask", use_id_loss=True, num_classes=7
    )
    config.save_pretrained(tmp_path)
    for load in (MGCCConfig.from_pretrained, ReIDConfig.from_pretrained):
        again = load(tmp_path)
        assert (again.num_image_tokens, again.num_text_tokens) == (20, 12)
        assert (again.aggregation, again.similarities, again.text_padding) == ("mean_max", ["it", "pw", "pt"], "mask")
        assert again.vision_config.patch_size == 32
    assert MGCCConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
