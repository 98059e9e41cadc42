"""CLIP's text tower computes what transformers and open_clip compute, and adds what the methods need."""

from __future__ import annotations

import pytest
import torch
from open_clip.model import CLIP as OpenCLIP
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from transformers import CLIPTextConfig, CLIPTextModel

from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.encoders.clip_text_transformer import (
    CLIPTextTransformer,
    end_of_text_indices,
    without_padding,
)
from reid_zoo.models.encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from reid_zoo.models.encoders.text_tower_weights import (
    convert_openai_clip_text,
    convert_transformers_clip_text,
    infer_clip_text_sizes,
    is_clip_text_key,
)

torch.set_num_threads(1)

# Both sides compute in float32 with differently fused projections: rounding only.
CLOSE = {"rtol": 0, "atol": 2e-5}
VOCABULARY, WIDTH, LENGTH, END = 60, 64, 12, 59


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights for which every rule of the conversion matters: no zeros, no ones, layer norms included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_norm_weight else 0.15 * noise)
    return model.eval()


def tower(**fields) -> CLIPTextTransformer:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "max_position_embeddings": LENGTH}
    return randomise(CLIPTextTransformer(ReIDCLIPTextConfig(**{**sizes, **heads, **fields})))


def sentences() -> torch.Tensor:
    """Ids whose end token stands at 4, 7 and 11, followed by padding 0."""
    ids = torch.randint(1, END - 1, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    for row, end in enumerate((4, 7, 11)):
        ids[row, end] = END
        ids[row, end + 1 :] = 0
    return ids


@torch.no_grad()
def test_padding_behind_the_longest_sentence_can_be_left_out():
    model, ids = tower(), sentences()[:2]
    assert without_padding(sentences()).shape == (3, 12)
    short = without_padding(ids)
    assert torch.equal(short, ids[:, :8])
    torch.testing.assert_close(model(short).last_hidden_state, model(ids).last_hidden_state[:, :8], **CLOSE)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_equals_transformers(activation):
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        eos_token_id=END,
    )
    theirs = randomise(CLIPTextModel(config))
    state = {key.removeprefix("text_model."): value for key, value in theirs.state_dict().items()}
    converted = convert_transformers_clip_text(state)
    sizes = infer_clip_text_sizes(converted)
    ours = CLIPTextTransformer(ReIDCLIPTextConfig(**sizes, num_attention_heads=4, hidden_act=activation)).eval()
    ours.load_state_dict(converted)
    tokens = ours(sentences()).last_hidden_state
    expected = theirs(sentences())
    torch.testing.assert_close(tokens, expected.last_hidden_state, **CLOSE)
    pooled = tokens[torch.arange(3), end_of_text_indices(sentences())]
    torch.testing.assert_close(pooled, expected.pooler_output, **CLOSE)


@torch.no_grad()
def test_equals_open_clip():
    theirs = randomise(
        OpenCLIP(
            embed_dim=16,
            vision_cfg=CLIPVisionCfg(layers=1, width=64, patch_size=8, image_size=16),
            text_cfg=CLIPTextCfg(context_length=LENGTH, vocab_size=VOCABULARY, width=WIDTH, heads=4, layers=2),
            quick_gelu=True,
        )
    )
    whole = theirs.state_dict()
    state = {key: value for key, value in whole.items() if is_clip_text_key(key) and key != "text_projection"}
    assert {key for key in whole if not key.startswith("visual.")} - set(state) == {"text_projection", "logit_scale"}
    converted = convert_openai_clip_text(state)
    ours = CLIPTextTransformer(ReIDCLIPTextConfig(**infer_clip_text_sizes(converted), num_attention_heads=4)).eval()
    ours.load_state_dict(converted)
    tokens = ours(sentences()).last_hidden_state
    pooled = tokens[torch.arange(3), end_of_text_indices(sentences())] @ whole["text_projection"]
    torch.testing.assert_close(pooled, theirs.encode_text(sentences()), **CLOSE)


def test_the_first_of_several_end_tokens_counts():
    ids = sentences()
    ids[0, 5:] = END  # transformers' tokenizer pads with the end token
    assert end_of_text_indices(ids).tolist() == [4, 7, 11]


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@torch.no_grad()
def test_no_token_sees_what_comes_after_it(kernel):
    model = tower()
    model.set_attn_implementation(kernel)
    changed = sentences()
    changed[:, 6:] = 5
    before, after = model(sentences()).last_hidden_state, model(changed).last_hidden_state
    torch.testing.assert_close(before[:, :6], after[:, :6], **CLOSE)
    assert (before[:, 6:] - after[:, 6:]).abs().amax(dim=(1, 2)).min() > 0.01
    # ... so a shorter batch gives the same tokens
    torch.testing.assert_close(model(sentences()[:, :6]).last_hidden_state, before[:, :6], **CLOSE)


@torch.no_grad()
def test_sdpa_equals_eager():
    model = tower()
    outputs = []
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        outputs.append(model(sentences(), output_token_scores=True))
    torch.testing.assert_close(outputs[0].last_hidden_state, outputs[1].last_hidden_state, **CLOSE)
    torch.testing.assert_close(outputs[0].token_scores, outputs[1].token_scores, rtol=0, atol=1e-6)


@torch.no_grad()
def test_token_scores_are_the_end_tokens_row_of_the_last_attention_map():
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        attn_implementation="eager",
    )
    theirs = randomise(CLIPTextModel(config))
    model = tower()
    state = {key.removeprefix("text_model."): value for key, value in theirs.state_dict().items()}
    model.load_state_dict(convert_transformers_clip_text(state))
    scores = model(sentences(), output_token_scores=True).token_scores
    last_map = theirs(sentences(), output_attentions=True).attentions[-1].mean(dim=1)
    torch.testing.assert_close(scores, last_map[torch.arange(3), torch.tensor([4, 7, 11])], rtol=0, atol=1e-6)
    assert (scores[0, 5:] == 0).all()


@torch.no_grad()
def test_embeddings_can_take_the_place_of_ids():
    model = tower()
    embeds = model.token_embedding(sentences())
    torch.testing.assert_close(
        model(inputs_embeds=embeds).last_hidden_state, model(sentences()).last_hidden_state, rtol=0, atol=0
    )
    with pytest.raises(ConfigurationError, match="needs input_ids"):
        model(inputs_embeds=embeds, output_token_scores=True)


def test_embeddings_receive_gradients():
    model = tower()
    prompts = torch.zeros(2, LENGTH, WIDTH, requires_grad=True)
    model(inputs_embeds=prompts).last_hidden_state[:, 3].square().sum().backward()
    assert (prompts.grad[:, :4].abs().amax(dim=(0, 2)) > 0).all()
    assert (prompts.grad[:, 4:] == 0).all()


def test_bad_inputs_are_explained():
    model = tower()
    with pytest.raises(ConfigurationError, match="needs input_ids or inputs_embeds"):
        model()
    with pytest.raises(ConfigurationError, match="have 13 tokens, but the text tower takes 12"):
        model(torch.ones(1, LENGTH + 1, dtype=torch.long))


def test_every_weight_is_initialised_after_meta_device_loading(tmp_path):
    tower().save_pretrained(tmp_path)
    loaded = CLIPTextTransformer.from_pretrained(tmp_path)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, tower().state_dict()[name]), name
    torch.manual_seed(0)
    fresh = CLIPTextTransformer(loaded.config)
    deviations = {name: value.std().item() for name, value in fresh.state_dict().items() if value.ndim > 1}
    assert deviations["position_embedding"] == pytest.approx(0.02, rel=0.2)
    assert all(0.005 < deviation < 0.2 for deviation in deviations.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size = 64 is not a multiple of num_attention_heads = 5"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"vocabulary": 3}, "unknown field 'vocabulary'"),
    ],
)
def test_bad_sizes_are_explained(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        ReIDCLIPTextConfig(**{"hidden_size": 64, "num_attention_heads": 4, **fields})


def test_foreign_weights_are_refused():
    with pytest.raises(CheckpointError, match=r"unexpected key 'bert.x'"):
        convert_openai_clip_text({"bert.x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"lacks token_embedding\.weight"):
        infer_clip_text_sizes({})
