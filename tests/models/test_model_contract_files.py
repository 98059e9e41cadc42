"""What a user may expect of every model type's folders: bit-exact, safe to load, the right class, nothing left out."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

from contract_cases import SENTENCES, BuiltCase, photos
from reid_zoo import ReIDConfig, ReIDModel, ReIDModelForTraining, ReIDProcessor
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.registry import METHODS

KINDS = ("inference", "training")


def model_of(built: BuiltCase, kind: str):
    return built.model if kind == "inference" else built.training


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return set(a) == set(b) and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def own_fields(config) -> dict:
    """A configuration without what transformers notes about the file and the loading."""
    bookkeeping = {"_name_or_path", "architectures", "dtype", "transformers_version"}
    values = {name: value for name, value in config.to_dict().items() if name not in bookkeeping}
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = {key: part for key, part in value.items() if key not in bookkeeping}
    return values


def training_only(built: BuiltCase) -> set[str]:
    """Weights of the training model that the inference model does not have."""
    prefix = built.training.base_model_prefix + "."
    return {key for key in built.training.state_dict() if not key.startswith(prefix)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_save_and_load_is_bit_exact(built: BuiltCase, tmp_path, log, kind: str, shard_size: str):
    model = model_of(built, kind)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "20KB")
    log.clear()
    auto = ReIDModel if kind == "inference" else ReIDModelForTraining
    for load in (type(model).from_pretrained, auto.from_pretrained):
        loaded = load(tmp_path)
        assert type(loaded) is type(model)
        assert not loaded.training
        assert same_weights(loaded, model)
        assert trainable(loaded) == trainable(model)
        assert own_fields(loaded.config) == own_fields(model.config)
    assert not log.records


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_every_tensor_once(built: BuiltCase, tmp_path, kind: str):
    model = model_of(built, kind)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(model.state_dict())
    for (one, first), (other, second) in combinations(saved.items(), 2):
        if first.shape == second.shape and first.unique().numel() > 1:
            assert not torch.equal(first, second), f"{one} is {other}"


def test_configuration_survives_json_and_refuses_unknown_fields(built: BuiltCase, tmp_path):
    config = built.training.config
    config.save_pretrained(tmp_path)
    for load in (type(config).from_pretrained, ReIDConfig.from_pretrained, AutoConfig.from_pretrained):
        loaded = load(tmp_path)
        assert type(loaded) is type(config)
        assert own_fields(loaded) == own_fields(config)
        assert type(loaded.vision_config) is type(config.vision_config)
    assert own_fields(type(config)(**config.to_dict())) == own_fields(config)
    values = json.loads((tmp_path / "config.json").read_text())
    for place in (values, values["vision_config"]):
        place["colour_of_the_coat"] = 1
        (tmp_path / "config.json").write_text(json.dumps(values))
        with pytest.raises(ConfigurationError, match="colour_of_the_coat"):
            ReIDConfig.from_pretrained(tmp_path)
        with pytest.raises(ConfigurationError, match="colour_of_the_coat"):
            ReIDModel.from_pretrained(tmp_path)
        del place["colour_of_the_coat"]


def test_training_checkpoint_loads_for_inference_without_a_word(built: BuiltCase, log):
    log.clear()
    for load in (built.method.model_class.from_pretrained, ReIDModel.from_pretrained, AutoModel.from_pretrained):
        loaded = load(built.folder)
        assert type(loaded) is built.method.model_class
        assert same_weights(loaded, built.model)
        assert trainable(loaded) == trainable(built.model)
    assert not log.records, "a left-out head is expected"


def test_heads_are_new_when_an_inference_model_is_trained_further(built: BuiltCase, tmp_path, log):
    built.model.save_pretrained(tmp_path)
    assert not training_only(built) & set(load_file(tmp_path / "model.safetensors"))
    log.clear()
    loaded = built.method.training_class.from_pretrained(tmp_path)
    assert same_weights(getattr(loaded, loaded.base_model_prefix), built.model)
    assert set(loaded.state_dict()) == set(built.training.state_dict())
    assert trainable(loaded) == trainable(built.training)
    notices = [record.getMessage() for record in log.records]
    if training_only(built):
        assert len(notices) == 1, notices
        assert all(key in notices[0] or key.split(".")[0] in notices[0] for key in training_only(built))
    else:
        assert not notices


@pytest.mark.parametrize("kind", ["model_class", "training_class"])
def test_a_file_without_a_tower_weight_is_refused_by_its_name(built: BuiltCase, tmp_path, kind: str):
    built.training.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in sorted(state) if ".vision_model." in name)
    save_file({name: value for name, value in state.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"lacks the weights .*{lost.partition('.')[2]}"):
        getattr(built.method, kind).from_pretrained(tmp_path)


def test_another_methods_folder_is_refused_by_name(built: BuiltCase):
    for other in METHODS.values():
        if other is built.method:
            continue
        for model_class in (other.model_class, other.training_class):
            with pytest.raises(CheckpointError, match=f"'{built.case.model_type}' model, but.*'{other.model_type}'"):
                model_class.from_pretrained(built.folder)


def test_auto_classes_find_everything_in_a_folder(built: BuiltCase):
    assert type(AutoConfig.from_pretrained(built.folder)) is built.method.config_class
    assert type(AutoModel.from_pretrained(built.folder)) is built.method.model_class
    assert type(AutoModel.from_config(built.training.config)) is built.method.model_class
    assert type(ReIDModelForTraining.from_pretrained(built.folder)) is built.method.training_class
    assert type(ReIDModelForTraining.from_config(built.training.config)) is built.method.training_class
    for load in (AutoProcessor.from_pretrained, ReIDProcessor.from_pretrained):
        processor = load(built.folder)
        assert type(processor) is ReIDProcessor
        given = {"images": photos(2)} | ({"text": list(SENTENCES)} if built.case.has_text else {})
        for name, expected in built.processor(**given).items():
            assert torch.equal(processor(**given)[name], expected), name


@contextlib.contextmanager
def memory_full_of_nan() -> Iterator[None]:
    """Uninitialised memory holds NaN, as torch offers for its deterministic mode."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def assert_initialised(model: torch.nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.device.type == "cpu", name
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_uninitialised(built: BuiltCase, tmp_path, kind: str):
    """Transformers builds on the meta device: what the file lacks must be initialised, not left as found in memory."""
    model_class = type(model_of(built, kind))
    torch.manual_seed(5)
    with memory_full_of_nan():
        fresh = model_class(copy.deepcopy(built.training.config))
    assert_initialised(fresh)

    model_of(built, kind).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    saved = load_file(file)
    largest = max(saved, key=lambda key: saved[key].numel())
    for kept in ({largest}, {key for key in saved if not key.endswith(("embedding", "embeddings", "weight"))}):
        save_file({key: saved[key] for key in kept}, file, metadata={"format": "pt"})
        torch.manual_seed(5)
        with memory_full_of_nan():
            loaded = model_class.from_pretrained(tmp_path, output_loading_info=True)[0]
        assert_initialised(loaded)
        torch.manual_seed(5)
        again = model_class.from_pretrained(tmp_path, output_loading_info=True)[0]
        assert same_weights(loaded, again), "initialisation depends on found memory"
        for (name, given), expected in zip(loaded.state_dict().items(), fresh.state_dict().values(), strict=True):
            if name in kept or given.numel() < 2:
                continue
            # The same distribution as in a new model; of few numbers only whether they differ at all.
            spread, wanted = given.float().std(), expected.float().std()
            tolerance = 0.5 if given.numel() >= 100 else 10
            assert (spread > 0) == (wanted > 0), name
            assert torch.isclose(spread, wanted, rtol=tolerance, atol=0), f"{name}: {spread} instead of {wanted}"


@pytest.mark.parametrize("kind", KINDS)
def test_models_can_be_built_without_memory(built: BuiltCase, kind: str):
    model = model_of(built, kind)
    with torch.device("meta"):
        empty = type(model)(copy.deepcopy(model.config))
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    assert trainable(empty) == trainable(model)
    empty.load_state_dict(model.state_dict(), assign=True)
    assert same_weights(empty, model)


def test_low_memory_loading_by_device_map(built: BuiltCase, device: torch.device):
    loaded = built.method.model_class.from_pretrained(built.folder, device_map=device.type)
    assert {parameter.device.type for parameter in loaded.parameters()} == {device.type}
    assert same_weights(loaded.to("cpu"), built.model)
    assert trainable(loaded) == trainable(built.model)


def test_half_precision_files_load_in_float32(built: BuiltCase, tmp_path):
    copy.deepcopy(built.model).half().save_pretrained(tmp_path)
    for load in (built.method.model_class.from_pretrained, ReIDModel.from_pretrained, AutoModel.from_pretrained):
        assert {parameter.dtype for parameter in load(tmp_path).parameters()} == {torch.float32}


def test_a_damaged_file_is_said_in_one_line(built: BuiltCase, tmp_path):
    shutil.copytree(built.folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot read the weights") as caught:
        built.method.model_class.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
