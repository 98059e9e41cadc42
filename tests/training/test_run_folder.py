"""A run that is started again: what may differ, what is refused and how, and that two runs never share a folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file

from reid_zoo.data import load_dataset
from reid_zoo.data.records import PersonDataset
from reid_zoo.errors import RecipeError, TrainingError
from reid_zoo.training import load_recipe, run_folder, train
from reid_zoo.training.run_folder import (
    LOCK_FILE,
    describe_records,
    locked,
    refuse_other_recipe,
    refuse_other_records,
    what_is_kept,
    write_recipe,
    write_records,
)
from small_runs import SMALL_TOWERS, interrupted_at
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
SMALL = [
    *SMALL_TOWERS,
    "image_size=[48, 32]",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "evaluation.save_every_epochs=1",
]
STEPS = 3  # of an epoch


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"))


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a checkpoint of the recipe `SMALL`."""
    (tmp_path / "m" / "checkpoint-3").mkdir(parents=True)
    write_recipe(tmp_path / "m", recipe())
    return tmp_path / "m"


def recipe(*overrides, name="dual_encoder-tiny"):
    return load_recipe(name, [*SMALL, *overrides])


def run(people, output, *overrides, **options):
    return train(recipe(*overrides), data_root=people, output_dir=output, progress=False, **options)


def interrupted_run(monkeypatch, people, output, *, step):
    with interrupted_at(monkeypatch, step):
        run(people, output)


def test_the_same_recipe_is_accepted_whatever_is_around_it(folder):
    refuse_other_recipe(folder, recipe())
    changes = [
        "description=another one",
        "logging.report_to=[tensorboard]",
        "evaluation.batch_size=8",
        "evaluation.save_every_steps=7",
        "optimization.cached_gradients=2",
        "optimization.gradient_checkpointing=true",
        "optimization.cache_images=true",
        "optimization.num_workers=2",
        "optimization.logging_steps=1",
    ]
    refuse_other_recipe(folder, recipe(*changes))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=7", r"\(seed was 42, is 7\)"),
        ("optimization.max_grad_norm=1", r"optimization\.max_grad_norm was 5\.0, is 1"),
        ("optimization.ema_decay=0.9", r"optimization\.ema_decay was 0\.0, is 0\.9"),
        ("optimization.bf16=true", r"optimization\.bf16 was False, is True"),
        ("evaluation.patience=2", r"evaluation\.patience was 0, is 2"),
        ("optimization.lora={rank: 4}", r"optimization\.lora\.rank was not set, is 4"),
        ("model.config.temperature=0.1", r"model\.config\.temperature was 0\.07, is 0\.1"),
        ("model.preset=null", r"model\.preset was tiny, is not set"),
        ("processor.interpolation=bilinear", r"processor\.interpolation was not set, is bilinear"),
        (
            "optimization.parameter_groups=[{name: all, learning_rate: 5e-5}]",
            r"optimization\.parameter_groups\[0\]\.learning_rate was .*, is 5e-05",
        ),
    ],
)
def test_another_recipe_is_refused_with_both_values(folder, override, told):
    with pytest.raises(RecipeError, match=told) as raised:
        refuse_other_recipe(folder, recipe(override))
    message = str(raised.value)
    assert "\n" not in message
    assert "--no-resume" in message
    assert "model.start_from=CHECKPOINT" in message


def test_of_many_differences_the_first_are_named(folder):
    other = [f"model.config.weight_{index}=1" for index in range(8)]
    with pytest.raises(RecipeError, match="and 3 more"):
        refuse_other_recipe(folder, recipe(*other))


def test_a_recipe_of_an_older_version_lacks_fields(folder):
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    del values["logging"], values["optimization"]["ema_decay"], values["model"]["start_from"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    refuse_other_recipe(folder, recipe())
    with pytest.raises(RecipeError, match="ema_decay was"):
        refuse_other_recipe(folder, recipe("optimization.ema_decay=0.5"))
    values["no_longer_known"] = 3
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=r"is not read: .*no_longer_known"):
        refuse_other_recipe(folder, recipe())
    (folder / "recipe.yaml").unlink()
    with pytest.raises(RecipeError, match="of which run"):
        refuse_other_recipe(folder, recipe())
    shutil.rmtree(folder / "checkpoint-3")
    refuse_other_recipe(folder, recipe("seed=8"))


def test_what_the_recipe_leaves_to_the_method_is_not_compared(folder):
    complete = recipe("processor.interpolation=bilinear", "processor.image_mean=[0.5, 0.5, 0.5]")
    write_recipe(folder, complete)
    refuse_other_recipe(folder, recipe())
    with pytest.raises(RecipeError, match="image_mean"):
        refuse_other_recipe(folder, recipe("processor.image_mean=[0.4, 0.5, 0.5]"))


def reordered(records, **changes):
    """The records with the last one changed, or in another order."""
    found = list(records)
    if changes:
        found[-1] = dataclasses.replace(found[-1], **changes)
    else:
        found[0], found[-1] = found[-1], found[0]
    return PersonDataset(found, name=records.name, split=records.split, root=records.root)


def test_other_data_is_refused(people, folder, tmp_path):
    records = load_dataset("cuhk-pedes", people, "train")
    refuse_other_records(folder, {"training": describe_records(records)})  # a run of an older version
    write_records(folder, {"training": describe_records(records)})
    refuse_other_records(folder, {"training": describe_records(records), "validation": describe_records(records)})
    shutil.copytree(people, tmp_path / "elsewhere")
    moved = load_dataset("cuhk-pedes", tmp_path / "elsewhere", "train")
    refuse_other_records(folder, {"training": describe_records(moved)})
    last = records[-1]
    for other in (
        reordered(records),
        reordered(records, person_id=records[0].person_id),
        reordered(records, camera_id=5),
        reordered(records, view_id=1),
        reordered(records, captions=last.captions[::-1]),
        reordered(records, image_path=last.image_path.with_name("other.png")),
    ):
        with pytest.raises(RecipeError, match="other training data"):
            refuse_other_records(folder, {"training": describe_records(other)})
    fewer = PersonDataset(records.records[:-1], name="cuhk-pedes", split="train", root=people)
    with pytest.raises(RecipeError, match=r"5 images \(were 6\), 10 captions \(were 12\)"):
        refuse_other_records(folder, {"training": describe_records(fewer)})
    (folder / "training_records.json").write_text("{")
    with pytest.raises(RecipeError, match="cannot be read"):
        refuse_other_records(folder, {"training": describe_records(records)})


def test_a_run_is_not_continued_on_other_people(people, tmp_path, monkeypatch):
    interrupted_run(monkeypatch, people, tmp_path / "m", step=STEPS + 1)
    others = draw_people(tmp_path / "others", seed=3)
    with pytest.raises(RecipeError, match=r"on other training data: .*in another order, or with other names or labels"):
        run(others, tmp_path / "m")
    assert run(others, tmp_path / "m", resume=False).resumed_from is None


def test_a_run_goes_on_with_what_errors_advise_and_ends_the_same(people, tmp_path, monkeypatch):
    run(people, tmp_path / "straight")
    interrupted_run(monkeypatch, people, tmp_path / "m", step=STEPS + 1)
    summary = run(people, tmp_path / "m", "optimization.cached_gradients=2", "evaluation.batch_size=3")
    assert summary.resumed_from == tmp_path / "m" / f"checkpoint-{STEPS}"
    assert yaml.safe_load((tmp_path / "m" / "recipe.yaml").read_text())["optimization"]["cached_gradients"] == 2
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "m"))
    for name, value in one.items():
        # The same loss, added up in another order; Adam's steps of 1e-3 and less amplify the last bits of small gradients.
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4, msg=name)


def test_two_runs_do_not_share_a_folder(people, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_SECONDS_TO_WAIT", 0.1)
    run(people, tmp_path / "m")
    before = sorted(tmp_path.rglob("*"))
    with FileLock(tmp_path / "m" / LOCK_FILE), pytest.raises(TrainingError, match="another run is training in"):
        run(people, tmp_path / "m", resume=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert run(people, tmp_path / "m").steps == 2 * STEPS


def test_the_lock_of_a_killed_process_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_SECONDS_TO_WAIT", 0.1)
    script = (
        "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / LOCK_FILE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another run"), locked(tmp_path, is_writer=True):
            pass
        process.kill()
    with locked(tmp_path, is_writer=True):
        pass
    with locked(tmp_path, is_writer=True):  # and what ended by itself left it
        pass


def test_what_is_kept_is_looked_for_in_both_stages(tmp_path):
    def checkpoint(folder):
        folder.mkdir(parents=True)
        (folder / "checkpoint_manifest.json").write_text(json.dumps({"files": {}}))

    assert what_is_kept(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-9").mkdir()  # half of one
    with pytest.warns(UserWarning, match="checkpoint-9 is passed over"):
        assert what_is_kept(tmp_path) is None
    shutil.rmtree(tmp_path / "checkpoint-9")
    checkpoint(tmp_path / "stage1" / "checkpoint-4")
    assert what_is_kept(tmp_path) == tmp_path / "stage1" / "checkpoint-4"
    (tmp_path / "stage1" / "learned.json").write_text("{}")
    assert what_is_kept(tmp_path) == tmp_path / "stage1"
    checkpoint(tmp_path / "checkpoint-2")
    assert what_is_kept(tmp_path) == tmp_path / "checkpoint-2"
