"""What a user may expect of every model type: invariances, kernels, devices, precision, gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from contract_cases import BATCH, CASES, BuiltCase
from reid_zoo.models.registry import METHODS
from reid_zoo.outputs import RetrievalFeatures

# Float32 kernels of other shapes sum in another order; relative to the largest value of a tensor.
SUMMATION_ORDER = 1e-5


def features(model, inputs) -> dict[str, RetrievalFeatures]:
    """Modality → features, without gradients."""
    with torch.no_grad():
        return {name: getattr(model, f"get_{name}_features")(**arguments) for name, arguments in inputs.items()}


def assert_close(found, expected, tolerance: float = SUMMATION_ORDER) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def scores(model, found: dict[str, RetrievalFeatures]) -> torch.Tensor:
    """Sentences with images; images with images where there are no sentences."""
    with torch.no_grad():
        return model.similarity(found.get("text", found["image"]), found["image"])


def training_step(model, batch, seed: int = 3):
    """One training step; what the model draws is drawn from the seed."""
    model.train()
    torch.manual_seed(seed)
    output = model(**batch)
    output.loss.backward()
    return output


def with_dropout(model):
    """A copy whose every dropout drops something: only then does the state of the random generator matter."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.1
    return model


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_every_method_has_a_case():
    assert {case.model_type for case in CASES} == set(METHODS)
    assert len({str(case) for case in CASES}) == len(CASES)


def test_features_have_unit_length_and_the_size_that_the_configuration_says(built: BuiltCase):
    for name, found in features(built.model, built.inputs).items():
        assert found.embeds.shape == (BATCH, built.model.config.embedding_size), name
        torch.testing.assert_close(found.embeds.norm(dim=1), torch.ones(BATCH))
        assert found.pooler_output is found.embeds


def test_training_and_inference_model_give_the_same_features(built: BuiltCase):
    for name, found in features(built.training, built.inputs).items():
        assert torch.equal(found.embeds, features(built.model, built.inputs)[name].embeds), name


def test_similarity_is_sentences_by_images_in_float32(built_with_text: BuiltCase):
    built = built_with_text
    texts = {name: value[:2] for name, value in built.texts.items()}
    found = features(built.model, {"image": built.images, "text": texts})
    result = scores(built.model, found)
    assert result.shape == (2, BATCH)
    assert result.dtype == torch.float32
    with torch.no_grad():
        output = built.model(**built.images, **texts)
        assert torch.equal(output.similarity, result)
        assert torch.equal(scores(built.training, found), result)
    for row in range(2):  # row i is sentence i
        alone = features(built.model, {"text": {name: value[row : row + 1] for name, value in texts.items()}})
        assert_close(scores(built.model, {"text": alone["text"], "image": found["image"]})[0], result[row])


def test_a_dot_product_of_embeddings_ranks_like_the_similarity(built: BuiltCase):
    found = features(built.model, built.inputs)
    left, right = found.get("text", found["image"]).embeds, found["image"].embeds
    dots, result = left @ right.T, scores(built.model, found)
    if built.case.single_vector:
        assert torch.equal(dots.argsort(dim=1), result.argsort(dim=1))
        # The scale may differ (a sum of cosines), the order of all pairs may not.
        assert torch.equal(dots.flatten().argsort(), result.flatten().argsort())
    else:  # the embeddings rank a first stage only
        with torch.no_grad():
            assert_close(built.model.similarity(left, right), dots)
        assert not torch.allclose(result, dots, atol=1e-2)


def test_batch_size_and_order_do_not_change_features(built: BuiltCase):
    together = features(built.model, built.inputs)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    rows = [order, *(torch.tensor([row]) for row in range(BATCH))]
    for index in rows:
        inputs = {name: {key: value[index] for key, value in part.items()} for name, part in built.inputs.items()}
        for name, found in features(built.model, inputs).items():
            assert_close(found.embeds, together[name].embeds[index])
            if found.token_indices is not None:
                assert torch.equal(found.token_indices, together[name].token_indices[index])


def test_padding_does_not_change_sentences(built_with_text: BuiltCase):
    """Padded to the longest of the batch, or to the model's length."""
    built = built_with_text
    longest = int(built.texts["attention_mask"].sum(dim=1).max())
    assert longest < built.texts["input_ids"].shape[1], "the sentences leave no padding to cut off"
    short = {name: value[:, :longest] for name, value in built.texts.items()}
    images = features(built.model, {"image": built.images})
    padded, cut = (features(built.model, {"text": texts}) for texts in (built.texts, short))
    assert_close(cut["text"].embeds, padded["text"].embeds)
    assert_close(scores(built.model, cut | images), scores(built.model, padded | images))


def test_ids_and_mask_may_be_given_in_their_order(built_with_text: BuiltCase):
    built = built_with_text
    for model in (built.model, copy.deepcopy(built.training).eval()):
        with torch.no_grad():
            by_place = model.get_text_features(built.texts["input_ids"], built.texts["attention_mask"])
            by_name = model.get_text_features(**built.texts)
        assert torch.equal(by_place.embeds, by_name.embeds)


def test_loss_is_the_weighted_sum_of_its_terms(built: BuiltCase):
    output = training_step(copy.deepcopy(built.training), built.batch)
    assert output.loss.isfinite()
    assert output.loss.dtype == torch.float32
    weights = built.case.loss_weights or dict.fromkeys(output.loss_terms, 1)
    expected = sum(weight * output.loss_terms[name] for name, weight in weights.items())
    torch.testing.assert_close(output.loss, expected)


def test_every_trainable_parameter_learns(built: BuiltCase):
    model = copy.deepcopy(built.training)
    training_step(model, built.batch)
    for name, parameter in model.named_parameters():
        if any(part in name for part in built.case.without_gradient):
            continue
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_training_is_deterministic(built: BuiltCase):
    models = with_dropout(built.training), with_dropout(built.training)
    first, second = (training_step(model, built.batch) for model in models)
    assert torch.equal(first.loss, second.loss)
    for name, gradient in gradients(models[0]).items():
        assert torch.equal(gradient, gradients(models[1])[name]), name
    found = [features(built.model, built.inputs) for _ in range(2)]
    for name in built.inputs:
        assert torch.equal(found[0][name].embeds, found[1][name].embeds)


def test_gradient_checkpointing_changes_nothing(built: BuiltCase):
    plain, checkpointed = with_dropout(built.training), with_dropout(built.training)
    if not checkpointed.supports_gradient_checkpointing:  # batch norms in the tower: said, not ignored
        with pytest.raises(ValueError, match="not support"):
            checkpointed.gradient_checkpointing_enable()
        return
    checkpointed.gradient_checkpointing_enable()
    assert any(getattr(part, "gradient_checkpointing", False) for part in checkpointed.vision_tower.modules())
    expected, found = (training_step(model, built.batch) for model in (plain, checkpointed))
    torch.testing.assert_close(found.loss, expected.loss)
    assert set(gradients(checkpointed)) == set(gradients(plain))
    for name, gradient in gradients(checkpointed).items():
        assert_close(gradient, gradients(plain)[name])


def test_sdpa_equals_eager(built: BuiltCase):
    model = copy.deepcopy(built.training)
    found = {}
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        assert all(part.config._attn_implementation == kernel for part in model.modules() if hasattr(part, "config"))
        found[kernel] = features(model, built.inputs)
        found[kernel, "loss"] = training_step(copy.deepcopy(model), built.batch).loss.detach()
    for name, sdpa in found["sdpa"].items():
        assert_close(sdpa.embeds, found["eager"][name].embeds)
    assert_close(found["sdpa", "loss"], found["eager", "loss"])


def test_kernels_that_do_not_fit_are_not_claimed(built: BuiltCase):
    """Token selection and masks are not written for flash and flex attention."""
    for model in (built.model, built.training):
        assert model._supports_sdpa
        assert not model._supports_flash_attn
        assert not model._supports_flex_attn


def test_towers_compile_into_one_graph(built: BuiltCase):
    for modality, expected in features(built.model, built.inputs).items():
        torch._dynamo.reset()
        method = torch.compile(getattr(built.model, f"get_{modality}_features"), backend="eager", fullgraph=True)
        with torch.no_grad():
            found = method(**built.inputs[modality])
        assert torch.equal(found.embeds, expected.embeds), modality


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_precision_can_be_chosen_and_scores_stay_float32(built: BuiltCase, device: torch.device, dtype: torch.dtype):
    model = built.method.model_class.from_pretrained(built.folder, dtype=dtype).to(device)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    inputs = {name: {key: value.to(device) for key, value in part.items()} for name, part in built.inputs.items()}
    found, expected = features(model, inputs), features(built.model, built.inputs)
    # Cosines: three significant digits of float16, two of bfloat16, which may also select another token.
    tolerance = {torch.bfloat16: 0.05, torch.float16: 0.002, torch.float64: SUMMATION_ORDER}[dtype]
    for name in found:
        assert found[name].embeds.dtype == dtype
        cosines = torch.cosine_similarity(found[name].embeds.cpu().float(), expected[name].embeds)
        torch.testing.assert_close(cosines, torch.ones(BATCH), rtol=0, atol=tolerance)
    assert scores(model, found).dtype == torch.float32
    back = copy.deepcopy(built.model).to(dtype).to(torch.float32)
    assert scores(back, features(back, built.inputs)).dtype == torch.float32


def test_training_under_autocast(built: BuiltCase, device: torch.device):
    model = copy.deepcopy(built.training).to(device)
    batch = {name: value.to(device) for name, value in built.batch.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = training_step(model, batch)
        found = features(model.eval(), {"image": {name: batch[name] for name in built.images}})
        assert scores(model, found).dtype == torch.float32
    # What is compared, is compared in float32, although autocast would choose bfloat16 for every product.
    for values in (output.loss_terms, output.similarities or {}, {"loss": output.loss}):
        assert {name: value.dtype for name, value in values.items()} == dict.fromkeys(values, torch.float32)
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    expected = training_step(copy.deepcopy(built.training), built.batch).loss
    assert_close(output.loss.detach().cpu(), expected.detach(), 0.1)  # the towers' two significant digits


def test_models_move_between_devices(built: BuiltCase, device: torch.device):
    model = copy.deepcopy(built.training).to(device)
    inputs = {name: {key: value.to(device) for key, value in part.items()} for name, part in built.inputs.items()}
    found = features(model, inputs)
    assert all(tensor.device.type == device.type for tensor in [*model.parameters(), *model.buffers()])
    assert scores(model, found).device.type == device.type
    back = features(model.to("cpu"), built.inputs)
    for name, expected in features(built.training, built.inputs).items():
        assert_close(found[name].embeds.cpu(), expected.embeds, 1e-4)  # TF32 off, other kernels
        assert torch.equal(back[name].embeds, expected.embeds)
    batch = {name: value.to(device) for name, value in built.batch.items()}
    assert training_step(model.to(device), batch).loss.device.type == device.type
