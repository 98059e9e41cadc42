"""The cross-modal branch of IRRA and VFE-TPS."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reid_zoo.models.encoders.cross_modal_encoder import (
    CrossModalEncoder,
    init_cross_modal_encoder,
    init_linear_bias,
)
from tiny_clip_models import irra_config

torch.set_num_threads(1)
WIDTH, HEADS = 16, 2
CLOSE = {"rtol": 0, "atol": 1e-5}  # another order of summation


def encoder(layers: int = 2) -> CrossModalEncoder:
    torch.manual_seed(0)
    config = irra_config()
    config._attn_implementation = "sdpa"
    model = CrossModalEncoder(config, WIDTH, layers, HEADS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def states(length: int, seed: int) -> Tensor:
    return torch.randn(3, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def torch_attention(attention: nn.Module) -> nn.MultiheadAttention:
    """torch's own attention with the same weights."""
    reference = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": attention.in_proj.weight,
            "in_proj_bias": attention.in_proj.bias,
            "out_proj.weight": attention.out_proj.weight,
            "out_proj.bias": attention.out_proj.bias,
        }
    )
    return reference.eval()


@torch.no_grad()
def test_equals_the_formulas_with_torchs_own_attention():
    model, queries, memory = encoder(), states(5, 1), states(7, 2)
    norm_q, norm_m = model.query_layer_norm(queries), model.memory_layer_norm(memory)
    expected = torch_attention(model.cross_attn)(norm_q, norm_m, norm_m, need_weights=False)[0]  # no residual
    for layer in model.layers:
        normed = layer.layer_norm1(expected)
        expected = expected + torch_attention(layer.self_attn)(normed, normed, normed, need_weights=False)[0]
        hidden = layer.mlp.fc1(layer.layer_norm2(expected))
        expected = expected + layer.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))
    torch.testing.assert_close(model(queries, memory), model.post_layernorm(expected), **CLOSE)


@torch.no_grad()
def test_masked_memory_is_not_seen():
    model, queries, memory = encoder(), states(5, 1), states(7, 2)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[:, 4:] = False
    torch.testing.assert_close(model(queries, memory, mask), model(queries, memory[:, :4]), **CLOSE)
    assert (model(queries, memory, mask) - model(queries, memory)).abs().max() > 1e-3


@torch.no_grad()
def test_the_norms_belong_to_their_side():
    """Queries only pass the queries' norm: scaling the memory by a constant changes nothing behind its norm."""
    model, queries, memory = encoder(), states(5, 1), states(7, 2)
    torch.testing.assert_close(model(3 * queries, 5 * memory), model(queries, memory), rtol=0, atol=1e-3)  # norms' eps
    model.memory_layer_norm.weight.zero_()
    model.memory_layer_norm.bias.zero_()
    constant = model(queries, memory)
    torch.testing.assert_close(constant, model(queries, states(7, 9)), **CLOSE)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_initialisation_depends_on_width_and_depth(layers):
    torch.manual_seed(0)
    width = 128
    model = CrossModalEncoder(irra_config(), width, layers, 4)
    init_cross_modal_encoder(model)
    residual = width**-0.5 * (2 * max(layers, 1)) ** -0.5
    assert model.cross_attn.in_proj.weight.std().item() == pytest.approx(width**-0.5, rel=0.03)  # 49152 numbers
    assert model.cross_attn.out_proj.weight.std().item() == pytest.approx(residual, rel=0.05)  # 16384 numbers
    assert not model.cross_attn.in_proj.bias.any()
    for layer in model.layers:
        assert layer.mlp.fc1.weight.std().item() == pytest.approx((2 * width) ** -0.5, rel=0.03)
        assert layer.mlp.fc2.weight.std().item() == pytest.approx(residual, rel=0.03)


def test_bias_of_a_linear_layer_is_uniform():
    linear = nn.Linear(16, 4000)
    nn.init.zeros_(linear.bias)
    init_linear_bias(linear)
    bound = 16**-0.5
    assert linear.bias.abs().max() <= bound
    assert linear.bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
