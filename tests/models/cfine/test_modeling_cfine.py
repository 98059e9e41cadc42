"""CFine as a user meets it: every switch, invariances, loading and saving, transformers' Auto classes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from reid_zoo import CFineConfig, CFineForTraining, CFineModel, ReIDModel, ReIDModelForTraining
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.encoders.position_grid import resample_position_grid

torch.set_num_threads(1)

BATCH, LENGTH, VOCABULARY = 6, 20, 30
LABELS = torch.tensor([0, 1, 2, 0, 3, 1])


def config(**fields) -> CFineConfig:
    """25 tokens of an image and 20 of a sentence, 5 of each per group; dropout off so that losses are exact."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 32}
    text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | fields.pop("text_config", {})
    settings = {
        "vision_config": {**sizes, "image_size": [64, 24], "patch_size": 8, **fields.pop("vision_config", {})},
        "text_config": {**sizes, **text},
        "max_text_length": LENGTH,
        "image_token_ratio": 0.2,
        "text_token_ratio": 0.25,
        "gld_num_attention_heads": 4,
        "num_classes": 4,
    }
    return CFineConfig(**{**settings, **fields})


def build(model_class=CFineForTraining, seed: int = 0, **fields):
    torch.manual_seed(seed)
    model = model_class(config(**fields))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():  # a trained bottleneck
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def images(count: int = BATCH, height: int = 64, width: int = 24) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def sentences(lengths=(20, 18, 13, 7, 16, 20)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCABULARY, (len(lengths), LENGTH), generator=generator)
    mask = (torch.arange(LENGTH)[None] < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def step(model, **changes):
    model.train()
    output = model(**{"pixel_values": images(), "person_labels": LABELS, **sentences(), **changes})
    output.loss.backward()
    return output


SWITCHES = {
    # Table IV
    "No. 0": {"granularities": ["low"], "use_cfr": False, "use_fcd": False},
    "No. 2": {"granularities": ["low", "middle"], "use_cfr": False, "use_fcd": False},
    "No. 3": {"granularities": ["low", "high"], "use_cfr": False, "use_fcd": False},
    "No. 4": {"granularities": ["low"], "use_fcd": False},
    "No. 5": {"granularities": ["low"], "use_cfr": False},
    "No. 6": {"use_cfr": False, "use_fcd": False},
    "No. 7": {"use_fcd": False},
    "No. 8": {"use_cfr": False},
    "imagenet": {"vision_config": {"patch_bias": True, "use_pre_layernorm": False, "hidden_act": "gelu"}},
    # Table V
    "MGF-2K": {"granularities": ["low", "high"], "mgf_split": False},
    "self-attention": {"gld_attention_type": "self"},
    "CLS-mean": {"gld_cls_init": "mean"},
    "CLS-random": {"gld_cls_init": "random"},
    # Table VI
    "sum": {"cfr_aggregation": "sum"},
    "mean": {"cfr_aggregation": "mean"},
    "max": {"cfr_aggregation": "max"},
    # Fig. 5
    "image ratio": {"image_token_ratio": 0.3},
    "text ratio": {"text_token_ratio": 0.4},
    "two blocks": {"gld_num_layers": 2},
    "positive words": {"num_positive_words": 1},
    "positive patches": {"num_positive_patches": 2},
    # paper versus official
    "1": {"similarity": "sum"},
    "2": {"cfr_normalize": False, "cfr_temperature": 1},
    "3": {"fcd_reduction": "sum", "fcd_temperature": 1},
    "4": {"fcd_softmax": "per_direction"},
    "6": {"triplet_reduction": "mean"},
    "7": {"cmpm_granularity_weights": [1, 1, 1]},
    "7, CMPC": {"cmpc_granularity_weights": [1, 0.5, 0.5]},
    "8": {"cmpm_target_norm": "l1"},
    "8, epsilon": {"cmpm_epsilon": 1e-3},
    "9": {"diversity_form": "paper"},
    "10": {"use_bottleneck": False},
    "10, eps": {"bottleneck_eps": 0.1},
    "12": {"max_text_length": 28},
    "13": {"mask_padded_selection": True},
    "15": {"gld_num_layers": 2, "gld_tie_layers": False},
    "margin": {"triplet_margin": 5.0},
    "triplet weight": {"triplet_weight": 1.0},
    "diversity weight": {"diversity_weight": 2.0},
    "decoder width": {"gld_intermediate_size": 24},
    "decoder eps": {"gld_layer_norm_eps": 0.1},
    "decoder heads": {"gld_num_attention_heads": 2},
}


@pytest.fixture(scope="module")
def reference():
    """One training step of the default, from weights that other variants start from as well."""
    model = build()
    return model, step(copy.deepcopy(model))


def variant(reference_model, **fields):
    """A model of another configuration with the reference's weights wherever shapes agree."""
    model = build(seed=1, **fields)
    state = reference_model.state_dict()
    own = model.state_dict()
    model.load_state_dict(
        {key: state[key] if key in state and state[key].shape == own[key].shape else own[key] for key in own}
    )
    return model


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_changes_the_loss_or_the_score(reference, name):
    fields = SWITCHES[name]
    model = variant(reference[0], **copy.deepcopy(fields))
    output = step(model)
    assert output.loss.isfinite()
    weighted = {"triplet", "cmpm", "cmpc", "diversity_image", "diversity_text"} & set(output.loss_terms)
    assert all(output.loss_terms[term].isfinite() for term in weighted)
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is None or parameter.grad.isfinite().all(), parameter_name
    learning = sum(
        bool(parameter.grad is not None and parameter.grad.abs().sum() > 0) for parameter in model.parameters()
    )
    assert learning > 0.8 * len(list(model.parameters()))

    if name == "1":  # a switch of the score alone
        torch.testing.assert_close(output.loss, reference[1].loss)
        model.eval()
        with torch.no_grad():
            image, text = model.get_image_features(images()), model.get_text_features(**sentences())
            cosines = sum(
                torch.cosine_similarity(text.granularities[part][:, None], image.granularities[part][None], dim=-1)
                for part in model.config.granularities
            )
            torch.testing.assert_close(model.similarity(text, image), cosines, rtol=0, atol=1e-5)
    else:
        assert abs(output.loss.item() - reference[1].loss.item()) > 1e-5 * reference[1].loss.item()


@pytest.mark.parametrize("name", ["No. 0", "No. 2", "No. 3", "MGF-2K", "No. 6", "No. 7", "No. 8"])
def test_a_model_has_exactly_the_parts_it_uses(reference, name):
    fields = SWITCHES[name]
    model = variant(reference[0], **copy.deepcopy(fields))
    output = step(model)
    granularities = fields.get("granularities", ["low", "high", "middle"])
    assert list(output.image_features.granularities) == list(output.text_features.granularities) == granularities
    assert output.image_features.embeds.shape == (BATCH, 32 * len(granularities))
    assert {f"cmpm_{part}" for part in granularities} <= set(output.loss_terms)
    assert (model.cfine.global_local_decoder is None) == (granularities == ["low"])
    cfr, fcd = fields.get("use_cfr", True), fields.get("use_fcd", True)
    assert ("cfr" in output.similarities, "fcd" in output.similarities) == (cfr, fcd)
    assert ("triplet" in output.loss_terms) == (cfr or fcd)
    assert (output.image_features.token_indices is None) == (name == "No. 0")


def test_the_loss_is_the_weighted_sum_of_its_terms(reference):
    output, settings = reference[1], reference[0].config
    terms = output.loss_terms
    for kind in ("cmpm", "cmpc"):
        weights = getattr(settings, f"{kind}_granularity_weights")
        expected = sum(
            weight * terms[f"{kind}_{part}"] for weight, part in zip(weights, settings.granularities, strict=True)
        )
        torch.testing.assert_close(terms[kind], expected)
    expected = terms["cmpm"] + terms["cmpc"] + settings.triplet_weight * terms["triplet"]
    expected = expected + settings.diversity_weight * (terms["diversity_image"] + terms["diversity_text"])
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.similarities["total"], output.similarities["cfr"] + output.similarities["fcd"])


def test_score_before_dropout_makes_the_selection_certain():
    """[21]: with dropout in the attention only, the words selected are random unless read before it."""
    found = {}
    for before in (False, True):
        model = build(
            CFineModel, text_config={"attention_probs_dropout_prob": 0.5}, score_before_dropout=before
        ).train()
        torch.manual_seed(0)
        scores = []
        with torch.no_grad():
            for _ in range(2):
                # only the last block may be random, so that the scores see nothing else
                for layer in model.text_model.encoder.layer[:-1]:
                    layer.eval()
                scores.append(model.get_text_features(**sentences()).token_scores)
        found[before] = torch.equal(*scores)
    assert found == {False: False, True: True}


def test_tied_blocks_share_and_independent_blocks_do_not():
    tied = build(gld_num_layers=2).cfine.global_local_decoder.layers
    free = build(gld_num_layers=2, gld_tie_layers=False).cfine.global_local_decoder.layers
    assert (len(tied), len(free)) == (1, 2)
    model = build(CFineModel)
    once = model.get_image_features(images()).granularities["high"]
    model.global_local_decoder.num_layers = 2
    assert not torch.allclose(model.get_image_features(images()).granularities["high"], once)


@torch.no_grad()
def test_batch_size_does_not_change_features():
    model = build(CFineModel)
    together = model.get_image_features(images()), model.get_text_features(**sentences())
    for row in range(BATCH):
        image = model.get_image_features(images()[row : row + 1])
        text = model.get_text_features(**{name: value[row : row + 1] for name, value in sentences().items()})
        for alone, batch in zip((image, text), together, strict=True):
            # other shapes choose other kernels in float32
            torch.testing.assert_close(alone.embeds[0], batch.embeds[row], rtol=0, atol=1e-5)
            assert torch.equal(alone.token_indices[0], batch.token_indices[row])


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_a_batch_padded_to_less_gives_the_same_features(masked):
    model = build(CFineModel, mask_padded_selection=masked)
    full = sentences(lengths=(12, 9, 4))
    short = {name: value[:, :12] for name, value in full.items()}
    for inputs in (short, {"input_ids": short["input_ids"]}, {**short, "token_type_ids": torch.zeros(3, 12).long()}):
        features = model.get_text_features(**inputs)
        expected = model.get_text_features(**full)
        assert torch.equal(features.embeds, expected.embeds)
        assert torch.equal(features.token_indices, expected.token_indices)


@pytest.mark.parametrize(("lengths", "kept"), [((11, 4, 9), 11), ((3, 5, 2), 10)])  # 2 · K_t = 10
@torch.no_grad()
def test_padding_can_be_left_out_of_the_text_tower(lengths, kept):
    """What is selected does not depend on it, not even in sentences with fewer words than are selected."""
    model, inputs = build(CFineModel), sentences(lengths=lengths)
    assert 2 * model.config.num_text_tokens_per_group == 10
    short, whole = model.get_text_features(**inputs, keep_padding=False), model.get_text_features(**inputs)
    assert whole.tokens.shape[1] == LENGTH
    assert short.tokens.shape[1] == short.token_mask.shape[1] == short.token_scores.shape[1] == kept
    assert torch.equal(short.token_indices, whole.token_indices)
    torch.testing.assert_close(short.tokens, whole.tokens[:, :kept], rtol=0, atol=1e-5)
    torch.testing.assert_close(short.embeds, whole.embeds, rtol=0, atol=1e-5)  # another order of summation


def test_a_batch_that_is_too_long_is_refused():
    model = build(CFineModel)
    with pytest.raises(ConfigurationError, match="have 21 tokens, but the model takes 20"):
        model.get_text_features(torch.ones(1, 21, dtype=torch.long))


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_mask_padded_selection_ignores_padding(masked):
    """The embedding of the padding word is changed; only a model that looks at padding may notice."""
    model = build(mask_padded_selection=masked)
    inputs = sentences(lengths=(5, 7, 4, 6, 5, 3))

    def results():
        output = model(pixel_values=images(), person_labels=LABELS, **inputs)
        return output.text_features.granularities["middle"], output.similarities["total"]

    before = results()
    model.cfine.text_model.embeddings.word_embeddings.weight[0] += torch.linspace(-1, 1, 32)  # the padding word
    after = results()
    same = [torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(before, after, strict=True)]
    assert same == [masked, masked]


def test_a_batch_of_one_cannot_be_trained():
    model = build().train()
    one = {name: value[:1] for name, value in sentences().items()}
    with pytest.raises(ConfigurationError, match="batch of one"):
        model(pixel_values=images(1), person_labels=LABELS[:1], **one)
    assert model.eval()(pixel_values=images(1), person_labels=LABELS[:1], **one).loss.isfinite()


def test_hardest_mining_also_counts_anchors_inside_the_margin():
    losses = [step(build(triplet_mining=mining, triplet_margin=200.0)).loss for mining in ("violating", "hardest")]
    assert losses[1] > losses[0]  # [5]: with such a margin every anchor is inside it


def test_a_batch_of_one_identity_has_no_triplet_loss():
    output = step(build(), person_labels=torch.zeros(BATCH, dtype=torch.long))
    assert output.loss_terms["triplet"].item() == 0
    assert output.loss.isfinite()


def test_gradient_checkpointing_gives_the_same_gradients(reference):
    model = copy.deepcopy(reference[0])
    model.gradient_checkpointing_enable()
    plain = copy.deepcopy(reference[0])
    outputs = step(model), step(plain)
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if expected[name].grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)


@torch.no_grad()
def test_sdpa_equals_eager():
    model = build(CFineModel)
    found = []
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        assert model.vision_model.config._attn_implementation == kernel
        assert model.text_model.config._attn_implementation == kernel
        assert model.global_local_decoder.layers[0].self_attn.config._attn_implementation == kernel
        found.append((model.get_image_features(images()).embeds, model.get_text_features(**sentences()).embeds))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)  # other order of summation


@torch.no_grad()
def test_forward_gives_what_it_is_given():
    model = build(CFineModel)
    both = model(pixel_values=images(), **sentences((9, 12)))
    assert both.similarity.shape == (2, BATCH)
    assert both.similarity.dtype == torch.float32
    text, image = both.text_features, both.image_features
    torch.testing.assert_close(both.similarity, text.embeds @ image.embeds.T)
    torch.testing.assert_close(image.embeds.norm(dim=1), torch.ones(BATCH))
    torch.testing.assert_close(model.similarity(text.embeds, image.embeds), both.similarity)
    only = model(pixel_values=images())
    assert only.similarity is None
    assert only.text_features is None
    assert image.pooler_output is image.embeds


# ---------------------------------------------------------------- loading and saving


def same(one, other) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def log(caplog):
    transformers_logging.enable_propagation()
    yield caplog
    transformers_logging.disable_propagation()


@pytest.mark.parametrize(
    "fields", [{}, {"gld_cls_init": "random"}, {"granularities": ["low"], "use_bottleneck": False}]
)
@pytest.mark.parametrize("model_class", [CFineModel, CFineForTraining])
def test_save_and_load_is_bit_exact(tmp_path, log, model_class, fields):
    model = build(model_class, **fields)
    model.save_pretrained(tmp_path)
    auto = ReIDModel if model_class is CFineModel else ReIDModelForTraining
    log.clear()
    for load in (model_class.from_pretrained, auto.from_pretrained):
        again = load(tmp_path)
        assert type(again) is model_class
        assert not again.training
        assert same(model, again)
        trainable = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
        assert trainable == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not log.records


def test_training_checkpoint_loads_silently_for_inference_and_back(tmp_path, log):
    training = build()
    training.save_pretrained(tmp_path / "training")
    log.clear()
    inference = CFineModel.from_pretrained(tmp_path / "training")
    assert not log.records, "a left-out head is expected"
    assert same(training.cfine, inference)
    inference.save_pretrained(tmp_path / "inference")
    assert not any("cmpc" in key for key in load_file(tmp_path / "inference" / "model.safetensors"))
    log.clear()
    again = CFineForTraining.from_pretrained(tmp_path / "inference")
    assert same(again.cfine, inference)
    assert any("cmpc_loss.weight" in record.getMessage() for record in log.records), "a new head is said"
    spread = again.cmpc_loss.weight.abs()
    assert 0 < spread.max() <= (6 / (32 + 4)) ** 0.5  # Xavier-uniform


def test_another_image_size_while_loading(tmp_path):
    model = build(CFineModel)
    model.save_pretrained(tmp_path)
    for load in (CFineModel.from_pretrained, ReIDModel.from_pretrained):
        resized = load(tmp_path, image_size=(80, 40))
        assert resized.config.vision_config.image_size == [80, 40]
        torch.testing.assert_close(
            resized.vision_model.embeddings.position_embedding.data,
            resample_position_grid(model.vision_model.embeddings.position_embedding.data, (8, 3), (10, 5)),
        )
        assert resized.get_image_features(images(2, 80, 40)).embeds.shape == (2, 96)
    resized.save_pretrained(tmp_path / "resized")
    assert same(CFineModel.from_pretrained(tmp_path / "resized"), resized)
    with pytest.raises(ConfigurationError, match="image_size"):
        CFineModel.from_pretrained(tmp_path, image_size=(7, 40))
    with pytest.raises(ConfigurationError, match="tokens of a group"):  # 5 tokens: a group has one
        model.resize_image_grid((16, 16))
    assert same(CFineModel.from_pretrained(tmp_path), model)  # nothing has changed
    assert model.get_image_features(images(2)).embeds.shape == (2, 96)


def test_half_precision_checkpoints_load_in_float32(tmp_path):
    model = build(CFineModel)
    copy.deepcopy(model).half().save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} >= {torch.float16}
    loaded = CFineModel.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert {p.dtype for p in ReIDModel.from_pretrained(tmp_path).parameters()} == {torch.float32}
    assert CFineModel.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    # scores in half precision are still returned in float32
    with torch.no_grad():
        features = loaded.to(torch.bfloat16).get_image_features(images())
    assert loaded.similarity(features, features).dtype == torch.float32


def test_nothing_is_left_uninitialised(tmp_path):
    """Transformers builds on the meta device: what the file lacks must be initialised, not left as found in memory."""
    model = build(gld_cls_init="random")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    from safetensors.torch import save_file

    kept = {key: value for key, value in state.items() if "text_model.embeddings.word" in key}
    save_file(kept, file, metadata={"format": "pt"})
    loaded, information = CFineForTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert set(information["missing_keys"]) == state.keys() - kept.keys()
    for name, tensor in [*loaded.named_parameters(), *loaded.named_buffers()]:
        assert tensor.device.type == "cpu", name
        assert tensor.isfinite().all(), name
        assert tensor.abs().max() < 100, name
        if name.endswith(
            ("in_proj.weight", "fc1.weight", "class_embeddings", "position_embedding", "cmpc_loss.weight")
        ):
            assert tensor.std() > 1e-3, name
    bottleneck = loaded.cfine.text_bottleneck
    assert torch.equal(bottleneck.running_var, torch.ones(32))
    assert torch.equal(bottleneck.running_mean, torch.zeros(32))
    assert not bottleneck.bias.requires_grad
    assert_initialised_as_specified(loaded)


def assert_initialised_as_specified(model):
    """Framework defaults for the decoder (spec section 10), not transformers' normal distribution."""
    decoder, vision = model.cfine.global_local_decoder.layers[0], model.cfine.vision_model.layers[0]
    for weight, bound in {
        decoder.mlp.fc1.weight: 32**-0.5,
        decoder.mlp.fc1.bias: 32**-0.5,
        decoder.mlp.fc2.weight: 128**-0.5,
        decoder.self_attn.out_proj.weight: 32**-0.5,
        decoder.cross_attn.in_proj.weight: (6 / (32 + 96)) ** 0.5,
        vision.self_attn.in_proj.weight: (6 / (32 + 96)) ** 0.5,
        model.cmpc_loss.weight: (6 / (32 + 4)) ** 0.5,
    }.items():
        assert 0.8 * bound < weight.abs().max() <= bound
    assert decoder.self_attn.in_proj.bias.abs().max() == 0
    assert 0.01 < vision.mlp.fc1.weight.std() < 0.03


def test_new_models_are_initialised_as_specified():
    torch.manual_seed(0)
    assert_initialised_as_specified(CFineForTraining(config()))


def test_the_bottleneck_bias_stays_frozen():
    model = build()
    step(model)
    for bottleneck in (model.cfine.image_bottleneck, model.cfine.text_bottleneck):
        assert bottleneck.bias.grad is None
        assert bottleneck.weight.grad.abs().sum() > 0


def test_folders_of_other_models_are_refused(tmp_path):
    bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    BertModel(bert).save_pretrained(tmp_path)
    for load in (CFineModel, CFineForTraining, ReIDModel):
        with pytest.raises(CheckpointError, match=r"'bert' model.*cfine"):
            load.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        CFineModel.from_pretrained(tmp_path / "..")


def test_another_method_of_the_zoo_is_refused_by_name(tmp_path, monkeypatch):
    from dataclasses import replace

    from reid_zoo.models import registry

    class OtherConfig(CFineConfig):
        model_type = "other"

    class OtherMethod(registry.Method):
        config_class = OtherConfig

    entry = registry.METHODS["cfine"]
    values = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    monkeypatch.setitem(registry.METHODS, "other", OtherMethod(**{**values, "model_type": "other"}))

    class Another(CFineModel):
        config_class = OtherConfig

    build(CFineModel).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"'cfine' model, but Another loads 'other'"):
        Another.from_pretrained(tmp_path)
    assert replace(entry) == entry


def test_from_config_builds_a_new_model():
    assert isinstance(ReIDModel.from_config(config()), CFineModel)
    assert isinstance(ReIDModelForTraining.from_config(config()), CFineForTraining)


# ---------------------------------------------------------------- transformers' Auto classes

IMPORTS = {
    "zoo only": "import reid_zoo",
    "after BertModel": "from transformers import BertModel; import reid_zoo",
    "before BertModel": "import reid_zoo; from transformers import BertModel",
    "after Auto": "from transformers import AutoConfig, AutoModel, AutoProcessor; import reid_zoo",
    "before Trainer": "import reid_zoo; from transformers import Trainer",
    "processing first": "import reid_zoo.processing",
}
SCRIPT = """
{imports}
import sys
from transformers import AutoConfig, AutoModel, AutoProcessor
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
assert type(config).__name__ == "CFineConfig", type(config)
model = AutoModel.from_pretrained(folder)
assert type(model).__name__ == "CFineModel", type(model)
assert type(AutoModel.from_config(config)).__name__ == "CFineModel"
processor = AutoProcessor.from_pretrained(folder)
assert type(processor).__name__ == "ReIDProcessor", type(processor)
import reid_zoo
assert isinstance(model, reid_zoo.CFineModel) and isinstance(config, reid_zoo.CFineConfig)
print("registered")
"""


@pytest.fixture(scope="module")
def complete_folder(tmp_path_factory):
    from transformers import BertTokenizer

    from reid_zoo import ReIDProcessor

    folder = tmp_path_factory.mktemp("complete")
    build(CFineModel).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    ReIDProcessor.build(tokenizer, image_size=(64, 24), max_text_length=LENGTH).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "cfine"
    return folder


@pytest.mark.parametrize("order", IMPORTS)
def test_auto_classes_know_the_zoo_in_every_order_of_imports(complete_folder, order):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(imports=IMPORTS[order]), str(complete_folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "registered" in done.stdout
