"""`reid-zoo evaluate` and `reid-zoo compare` as a user meets them."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from reid_zoo.processor_building import build_processor
from tiny_benchmarks import write_folders, write_vehicleid
from tiny_clip_reid_models import build as build_clip_reid
from tiny_mgcc import build_mgcc
from tiny_models import MAX_TEXT_LENGTH, draw_people, save_tiny_model, tiny_processor

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"), identities=9, images=2, test_identities=6)


@pytest.fixture(scope="module")
def image_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "clip-reid"
    model = build_clip_reid()
    model.save_pretrained(folder)
    build_processor(model.config).save_pretrained(folder)
    return folder


def test_captions_are_evaluated_with_intervals_and_a_report(run, model, people, tmp_path):
    command = ["evaluate", model, "--dataset", "cuhk-pedes", "--data-root", people, "--no-progress"]
    status, out, _ = run(*command, "--json", "--report", tmp_path / "report", "--robustness")
    found = json.loads(out)
    assert status == 0
    assert found["protocol"] == "text-to-image"
    assert found["intervals"]["R1"][0] <= found["metrics"]["R1"] <= found["intervals"]["R1"][1]
    assert [point["fraction"] for point in found["robustness"]] == [0, 0.25, 0.5, 0.75, 1]
    assert found["robustness"][0]["metrics"]["mAP"] == pytest.approx(found["metrics"]["mAP"], abs=0.1)
    assert {"report.json", "robustness.png", "robustness.json"} <= {p.name for p in (tmp_path / "report").iterdir()}
    status, out, _ = run(*command, "--protocol", "image-to-text")
    assert status == 0
    assert "image-to-text" in out
    assert "95 %" in out


def test_reports_are_compared(run, model, people, tmp_path):
    other = save_tiny_model(tmp_path / "other", seed=3)
    for name, folder in (("a", model), ("b", other)):
        command = ["evaluate", folder, "--dataset", "cuhk-pedes", "--data-root", people, "--no-progress"]
        assert run(*command, "--report", tmp_path / name)[0] == 0
    status, out, _ = run("compare", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "both", "--json")
    assert status == 0
    assert [entry["name"] for entry in json.loads(out)["runs"]] == ["tiny", "other"]
    assert (tmp_path / "both" / "cmc.png").is_file()
    assert "(p " in run("compare", tmp_path / "a", tmp_path / "b")[1]
    status, _, lines = run("compare", tmp_path / "a")
    assert (status, lines[-1]) == (1, "reid-zoo: error: a comparison needs at least two reports.")
    assert "is no report" in run("compare", tmp_path / "a", tmp_path)[2][-1]


def test_images_are_evaluated_by_camera(run, image_model, tmp_path):
    market = write_folders(
        tmp_path / "Market-1501-v15.09.15",
        {
            "bounding_box_train": ("0002_c1s1_000451_03.jpg",),
            "query": ("0001_c1s1_001051_00.jpg", "0003_c2s1_000001_00.jpg"),
            "bounding_box_test": (
                "0001_c2s1_000301_00.jpg",
                "0001_c1s1_000302_00.jpg",
                "0003_c3s1_000002_00.jpg",
                "0000_c1s1_000151_01.jpg",
            ),
        },
    )
    command = ["evaluate", image_model, "--dataset", "market-1501", "--data-root", market, "--no-progress", "--json"]
    status, out, _ = run(*command, "--report", tmp_path / "report")
    found = json.loads(out)
    assert status == 0
    assert (found["protocol"], found["num_queries"], found["num_gallery_images"]) == ("image-to-image", 2, 4)
    assert (tmp_path / "report" / "worst.png").is_file()
    status, out, _ = run(*command, "--rerank", "--set", "views=1")
    assert status == 1
    status, out, _ = run(*command, "--rerank")
    assert json.loads(out)["reranked"] is True


def test_vehicleid_is_evaluated_in_trials(run, image_model, tmp_path):
    root = write_vehicleid(tmp_path / "VehicleID_V1.0")
    command = ["evaluate", image_model, "--dataset", "vehicleid", "--data-root", root, "--no-progress"]
    status, out, _ = run(*command, "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["num_trials"], found["num_gallery_images"], found["num_queries"]) == (10, 3, 3)
    assert "10 trials" in run(*command)[1]
    assert "without --report, --rerank" in run(*command, "--rerank", "--report", tmp_path / "report")[2][-1]


def test_training_on_a_set_that_shares_images_is_said(run, model, people, tmp_path, monkeypatch):
    (model / "recipe.yaml").write_text(yaml.safe_dump({"dataset": "market-1501"}))
    command = ["evaluate", model, "--dataset", "cuhk-pedes", "--data-root", people, "--no-progress"]
    status, _, lines = run(*command)
    assert status == 0
    assert any("Market-1501 and CUHK-PEDES both hold images" in line for line in lines)
    (model / "recipe.yaml").unlink()


def test_wrong_options_are_named(run, model, image_model, people, tmp_path, monkeypatch):
    command = ["evaluate", model, "--dataset", "cuhk-pedes", "--data-root", people, "--no-progress"]
    assert "give --report FOLDER" in run(*command, "--robustness")[2][-1]
    (tmp_path / "file").write_text("")
    assert "is a file" in run(*command, "--report", tmp_path / "file")[2][-1]
    with monkeypatch.context() as patch:  # said before the work, not after it
        patch.setattr("reid_zoo.evaluation.figures.find_spec", lambda name: None if name == "sklearn" else True)
        assert "needs scikit-learn: pip install" in run(*command, "--report", tmp_path / "new")[2][-1]
    assert not (tmp_path / "new").exists()
    assert "protocol is 'i2t'" in run(*command, "--protocol", "i2t")[2][-1]
    assert "re-ranking" in run(*command, "--rerank")[2][-1]
    images_only = ["evaluate", image_model, "--dataset", "cuhk-pedes", "--data-root", people, "--no-progress"]
    assert "takes images only" in run(*images_only, "--protocol", "text-to-image")[2][-1]
    status, out, _ = run(*images_only)  # nobody divided these images into queries and a gallery
    assert status == 0
    assert "10 trials" in out


def test_two_stages_say_what_the_first_one_loses(run, model, people, tmp_path):
    late = build_mgcc(MGCCModel, text_config={"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH})
    late.save_pretrained(tmp_path / "late")
    tiny_processor().save_pretrained(tmp_path / "late")
    command = ["--dataset", "cuhk-pedes", "--data-root", people, "--no-progress", "--json"]
    exact = json.loads(run("evaluate", tmp_path / "late", *command)[1])
    everything = json.loads(run("evaluate", tmp_path / "late", *command, "--candidates", 1000)[1])
    assert everything["metrics"] == pytest.approx(exact["metrics"], abs=0.1)
    assert (everything["positive_recall"], everything["query_recall"]) == (100, 100)
    few = json.loads(run("evaluate", tmp_path / "late", *command, "--candidates", 2)[1])
    assert few["positive_recall"] < 100
    status, out, _ = run("evaluate", tmp_path / "late", *command[:-1], "--candidates", 2)
    assert status == 0
    assert "the first stage keeps" in out
    assert "ranks by its vectors alone" in run("evaluate", model, *command, "--candidates", 2)[2][-1]
    error = run("evaluate", tmp_path / "late", *command, "--candidates", 2, "--report", tmp_path / "r")[2][-1]
    assert "without --report" in error
