"""Options that change how a step is computed, but not what: mixed precision and recomputed activations."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo.training import ReIDTrainer, load_recipe, train
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of", "ignore:`gradient_checkpointing` is deprecated")
_SIZES = (
    "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2, hidden_dropout_prob: 0.1"
)
SMALL = [
    f"model.vision_config={{{_SIZES}, patch_size: 8}}",
    f"model.text_config={{{_SIZES}, max_position_embeddings: 64}}",
    "image_size=[48, 32]",
    "optimization.num_epochs=1",
    "optimization.batch_size=4",
    "optimization.logging_steps=1",
]
METHODS = ("cfine-tiny", "dual_encoder-tiny", "irra-tiny", "mgcc-tiny", "vfe_tps-tiny")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"))


def run(people, output, name, *overrides):
    """The weights at the end, the outputs of every forward pass, and the types of what layers of the towers compute."""
    outputs_of_steps, inside = [], set()
    compute_loss = ReIDTrainer.compute_loss

    def looking(self, model, inputs, return_outputs=False, **kwargs):
        layer = model.vision_tower.layers[0].self_attn
        handle = layer.register_forward_hook(lambda module, inputs, output: inside.add(output.dtype))
        loss, outputs = compute_loss(self, model, inputs, return_outputs=True, **kwargs)
        handle.remove()
        outputs_of_steps.append(outputs)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReIDTrainer, "compute_loss", looking)
        train(load_recipe(name, [*SMALL, *overrides]), data_root=people, output_dir=output, progress=False)
    return load_file(output / "model.safetensors"), outputs_of_steps, inside


@pytest.fixture(scope="module", params=METHODS)
def plain(request, people, tmp_path_factory):
    return request.param, run(people, tmp_path_factory.mktemp("plain") / "m", request.param)


def test_losses_are_float32_in_mixed_precision(people, plain, tmp_path):
    name, (_, expected, plain_types) = plain
    _, found, types = run(people, tmp_path / "m", name, "optimization.bf16=true")
    assert (plain_types, types) == ({torch.float32}, {torch.bfloat16})
    for outputs in found:
        assert outputs.loss.dtype == torch.float32
        assert {term.dtype for term in outputs.loss_terms.values()} == {torch.float32}
        assert torch.isfinite(outputs.loss)
    # 8 bits round features to 0.4 %, which a temperature of 0.02 multiplies by 50
    torch.testing.assert_close(found[0].loss, expected[0].loss, rtol=0.25, atol=0.05)


def test_recomputed_activations_change_nothing(people, plain, tmp_path):
    name, (expected, _, _) = plain
    found, _, _ = run(people, tmp_path / "m", name, "optimization.gradient_checkpointing=true")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
