"""The image tower: kernels, the attention row, grids and gradients."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.models.encoders.attention import attention_row, eager_attention_forward
from reid_zoo.models.encoders.configuration_vision_transformer import ReIDVisionConfig
from reid_zoo.models.encoders.position_grid import resample_position_grid
from reid_zoo.models.encoders.vision_transformer import VisionTransformer

torch.set_num_threads(1)


def tower(**fields) -> VisionTransformer:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = VisionTransformer(ReIDVisionConfig(**{**sizes, "patch_size": 8, "image_size": [32, 16], **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def pixels(height: int = 32, width: int = 16) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_non_square_images_keep_their_patches_in_row_major_order():
    model = tower(num_hidden_layers=1)
    assert model.config.grid_size == (4, 2)
    images = pixels()
    embedded = model.embeddings(images)
    assert embedded.shape == (2, 9, 32)
    weight = model.embeddings.patch_embedding.weight
    patch = images[:, :, 16:24, 8:16]  # row 2, column 1
    expected = torch.einsum("bchw,dchw->bd", patch, weight) + model.embeddings.position_embedding[1 + 2 * 2 + 1]
    torch.testing.assert_close(embedded[:, 6], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_class_token_alone_is_the_same_with_the_same_gradients(attention):
    model = tower()
    model.set_attn_implementation(attention)
    found = []
    for class_token_only in (False, True):
        model.zero_grad()
        encoded = model(pixels(), class_token_only=class_token_only)
        assert encoded.last_hidden_state.shape[1] == (1 if class_token_only else 9)
        assert encoded.penultimate_state.shape[1] == 9
        encoded.last_hidden_state[:, 0].sin().sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        found.append((encoded.last_hidden_state[:, 0].detach(), gradients))
    (token, gradients), (alone, gradients_alone) = found
    torch.testing.assert_close(alone, token, rtol=0, atol=1e-5)  # float32
    for name, gradient in gradients.items():
        error = (gradients_alone[name] - gradient).abs().max()
        assert error <= 1e-5 * gradient.abs().max().clamp(min=1e-3), name


@torch.no_grad()
def test_sdpa_equals_eager():
    model = tower()
    outputs = []
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        assert model.config._attn_implementation == kernel
        outputs.append(model(pixels(), output_token_scores=True))
    # two orders of summation in float32
    torch.testing.assert_close(outputs[0].last_hidden_state, outputs[1].last_hidden_state, rtol=0, atol=2e-5)
    torch.testing.assert_close(outputs[0].token_scores, outputs[1].token_scores, rtol=0, atol=1e-6)


@torch.no_grad()
def test_token_scores_are_the_class_row_of_the_last_attention_map():
    model = tower()
    last = model.layers[-1]
    seen = {}
    last.layer_norm1.register_forward_hook(lambda module, inputs, output: seen.update(states=output))
    output = model(pixels(), output_token_scores=True)
    attention = last.self_attn
    query, key, value = (attention._split_heads(part) for part in attention.in_proj(seen["states"]).chunk(3, dim=-1))
    _, weights = eager_attention_forward(attention, query, key, value, None, attention.scaling)
    torch.testing.assert_close(output.token_scores, weights.mean(dim=1)[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(output.token_scores.sum(dim=1), torch.ones(2))
    assert model(pixels()).token_scores is None


def test_masked_keys_get_probability_exactly_zero():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 1, 4, generator=generator), torch.randn(2, 3, 5, 4, generator=generator)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    probabilities = attention_row(query, key, 0.5, mask)
    assert torch.equal(probabilities[1, :, [2, 4]], torch.zeros(3, 2))
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(2, 3))


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = tower().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.layers)
        model(pixels()).last_hidden_state.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_scores_carry_no_gradient():
    assert not tower().train()(pixels(), output_token_scores=True).token_scores.requires_grad


def test_dropout_only_in_training():
    model = tower(hidden_dropout_prob=0.5, attention_dropout=0.5)
    with torch.no_grad():
        assert torch.equal(model(pixels()).last_hidden_state, model(pixels()).last_hidden_state)
        model.train()
        assert not torch.equal(model(pixels()).last_hidden_state, model(pixels()).last_hidden_state)


def test_imagenet_variant_has_a_patch_bias_and_no_first_norm():
    names = {name for name, _ in tower(patch_bias=True, use_pre_layernorm=False, hidden_act="gelu").named_parameters()}
    assert "embeddings.patch_embedding.bias" in names
    assert not any(name.startswith("pre_layernorm") for name in names)


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "stride", "grid"), [((37, 23), 8, (4, 2)), ((37, 23), 10, (3, 2)), ((37, 23), 5, (6, 4))]
)
def test_pixels_that_fill_no_patch_are_not_seen(size, stride, grid):
    model = tower(image_size=list(size), patch_stride=stride)
    assert model.config.grid_size == grid
    images = pixels(*size)
    cropped = images.clone()
    rows, columns = ((count - 1) * stride + 8 for count in grid)
    cropped[:, :, rows:], cropped[:, :, :, columns:] = 7.0, 7.0
    states = model(images).last_hidden_state
    assert states.shape == (2, 1 + grid[0] * grid[1], 32)
    torch.testing.assert_close(model(cropped).last_hidden_state, states, rtol=0, atol=0)


@torch.no_grad()
def test_resize_image_grid():
    model = tower()
    before = model.embeddings.position_embedding.data.clone()
    model.resize_image_grid((48, 24))
    assert model.config.image_size == [48, 24]
    torch.testing.assert_close(model.embeddings.position_embedding.data, resample_position_grid(before, (4, 2), (6, 3)))
    assert isinstance(model.embeddings.position_embedding, torch.nn.Parameter)
    assert model(pixels(48, 24)).last_hidden_state.shape == (2, 19, 32)
    with pytest.raises(ConfigurationError, match="image_size"):
        model.resize_image_grid((50, 7))
    assert model.config.image_size == [48, 24]  # the failed attempt left nothing behind
    assert model(pixels(48, 24)).last_hidden_state.shape == (2, 19, 32)


@pytest.mark.parametrize("shape", [(2, 3, 16, 32), (2, 1, 32, 16), (3, 32, 16)])
def test_wrong_pixels_are_refused(shape):
    with pytest.raises(ConfigurationError, match=r"\(batch, 3, 32, 16\)"):
        tower()(torch.zeros(shape))


def test_configuration_errors_name_the_field():
    for fields, named in (
        ({"image_size": [32, 7]}, "image_size"),
        ({"image_size": [4, 16]}, "image_size"),
        ({"image_size": [32, 16, 3]}, "image_size"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"patch_size": "8"}, "patch_size"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
        ({"patchsize": 8}, "did you mean 'patch_size'"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            ReIDVisionConfig(**{"image_size": [32, 16], "patch_size": 8, **fields})
    assert ReIDVisionConfig(image_size=64).image_size == [64, 64]
