"""What a user sees of every command: results on stdout, one line and a non-zero status when something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

from reid_zoo.models.registry import METHODS
from tiny_models import draw_people, save_tiny_model

CASE = Path(__file__).parents[1] / "golden" / "cases" / "cfine" / "case_a"
TINY_RECIPE = [
    "model.vision_config={hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, patch_size: 8}",
    "model.text_config={hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " max_position_embeddings: 64}",
    "model.config={max_text_length: 56, gld_num_attention_heads: 2, image_token_ratio: 0.2}",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("data"), identities=8, images=2)


@pytest.fixture
def gallery(run, model, data, tmp_path):
    status, _, _ = run("index", model, data / "CUHK-PEDES" / "imgs", "--gallery", tmp_path / "g", "--no-progress")
    assert status == 0
    return tmp_path / "g"


def error_of(outcome) -> str:
    status, out, lines = outcome
    assert status == 1
    assert out == ""
    errors = [line for line in lines if line.startswith("reid-zoo: error: ")]
    assert len(errors) == 1, lines
    assert lines[-1] == errors[0]
    return errors[0]


def test_index_reports_what_it_did_and_a_rerun_adds_nothing(run, model, data, tmp_path):
    images = tmp_path / "people"
    shutil.copytree(data / "CUHK-PEDES" / "imgs", images)
    (images / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    (images / "empty.png").write_bytes(b"")
    (images / "notes.txt").write_text("not an image")
    status, out, lines = run("index", model, images, "--gallery", tmp_path / "g", "--json", "--no-progress")
    report = json.loads(out)
    assert (status, report["added"], report["skipped"], report["rows"]) == (0, 16, 0, 16)
    assert {Path(failed["path"]).name for failed in report["failed"]} == {"broken.jpg", "empty.png"}
    assert sum("skipped" in line for line in lines) == 2
    Image.new("RGB", (20, 40), "red").save(images / "new.png")
    status, out, _ = run("index", model, images, "--gallery", tmp_path / "g", "--no-progress")
    assert status == 0
    assert "1 added, 16 already there, 2 failed; 17 images in all" in out


def test_index_with_metadata_and_search_with_a_filter(run, model, data, tmp_path):
    images = data / "CUHK-PEDES" / "imgs"
    files = sorted(images.rglob("*.png"))
    table = images / "cameras.csv"
    table.write_text(
        "image,camera_id,time\n"
        + "".join(f"{f.relative_to(images)},{i},2024-05-0{i % 9 + 1}\n" for i, f in enumerate(files))
    )
    status, _, _ = run("index", model, images, "--gallery", tmp_path / "g", "--metadata", table, "--no-progress")
    assert status == 0
    table.unlink()
    status, out, _ = run(
        "search", tmp_path / "g", "a man", "--where", "camera_id = 3 and time >= '2024-05-01'", "--json"
    )
    assert [hit["metadata"]["camera_id"] for hit in json.loads(out)["hits"]] == [3]


def test_search_prints_ranked_answers_and_draws_a_sheet(run, gallery, tmp_path):
    sheet = tmp_path / "sheets" / "result.png"
    status, out, _ = run("search", gallery, "a woman in a red coat", "--top-k", 3, "--sheet", sheet, "--json")
    hits = json.loads(out)["hits"]
    assert status == 0
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    with Image.open(sheet) as picture:
        assert picture.width > 300
    status, out, _ = run("search", gallery, "--image", hits[1]["image"], "--top-k", 1, "--json")
    assert json.loads(out)["hits"][0]["image"] == hits[1]["image"]
    status, out, lines = run("search", gallery, "a woman", "--top-k", 99)
    assert status == 0
    assert any("only 16 images" in line for line in lines)


def test_queries_that_are_odd_but_possible(run, gallery):
    status, out, lines = run("search", gallery, "red " * 10_000, "--top-k", 1, "--json")
    assert status == 0
    assert any(line.startswith("note: a sentence of 10000 words") for line in lines)
    status, out, _ = run("search", gallery, "a woman in a 红色 coat", "--top-k", 1, "--json")
    assert status == 0
    assert len(json.loads(out)["hits"]) == 1


def test_search_errors(run, gallery, tmp_path):
    assert "the query is empty" in error_of(run("search", gallery, "  "))
    for query in ("穿红色外套的女人", "женщина", "?!"):
        assert f"knows no word of the query '{query}'" in error_of(run("search", gallery, query))
    assert "one of them" in error_of(run("search", gallery))
    assert "top_k is 0" in error_of(run("search", gallery, "a man", "--top-k", 0))
    assert "unknown field 'camera'" in error_of(run("search", gallery, "a man", "--where", "camera = 3"))
    assert "where" in error_of(run("search", gallery, "a man", "--where", "id ="))
    assert "no such gallery" in error_of(run("search", tmp_path / "none", "a man"))
    (tmp_path / "folder").mkdir()
    assert "is not a gallery" in error_of(run("search", tmp_path / "folder", "a man"))
    assert "name the sheet as a picture" in error_of(run("search", gallery, "a man", "--sheet", tmp_path / "a.txt"))


def test_index_errors(run, model, data, tmp_path):
    (tmp_path / "empty").mkdir()
    images = data / "CUHK-PEDES" / "imgs"
    assert "no image found" in error_of(run("index", model, tmp_path / "empty", "--gallery", tmp_path / "g"))
    assert "missing" in error_of(run("index", model, tmp_path / "missing", "--gallery", tmp_path / "g"))
    assert "neither a folder nor a Hub id" in error_of(
        run("index", tmp_path / "no-model", images, "--gallery", tmp_path / "g")
    )
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    error = error_of(run("index", tmp_path / "bert", images, "--gallery", tmp_path / "g"))
    assert "'bert' model" in error
    assert "cfine" in error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "not a gallery" in error_of(run("index", model, images, "--gallery", tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_gallery_of_another_model_is_refused_and_both_are_named(run, gallery, data, tmp_path):
    other = save_tiny_model(tmp_path / "other-model", seed=1)
    error = error_of(run("index", other, data / "CUHK-PEDES" / "imgs", "--gallery", gallery))
    assert "other-model" in error
    assert "was made with" in error
    assert "was made with" in error_of(run("search", gallery, "a man", "--model", other))


def test_train_evaluate_and_resume(run, data, tmp_path):
    settings = [part for value in TINY_RECIPE for part in ("--set", value)]
    command = [
        "train",
        "cfine-tiny",
        "--data-root",
        data,
        "--output",
        tmp_path / "m",
        "--no-progress",
        "--json",
        *settings,
    ]
    status, out, _ = run(*command)
    summary = json.loads(out)
    assert status == 0
    assert summary["steps"] > 0
    assert set(summary["validation"]) == {"R1", "R5", "R10", "mAP", "mINP", "Rsum"}
    assert {"config.json", "model.safetensors", "processor_config.json", "recipe.yaml"} <= {
        path.name for path in (tmp_path / "m").iterdir()
    }
    sheet = tmp_path / "ranked.png"
    evaluate = ["evaluate", tmp_path / "m", "--dataset", "cuhk-pedes", "--data-root", data / "CUHK-PEDES"]
    status, out, _ = run(*evaluate, "--json", "--no-progress", "--sheet", sheet)
    report = json.loads(out)
    assert status == 0
    assert set(report["metrics"]) == {"R1", "R5", "R10", "mAP", "mINP", "Rsum"}
    assert (report["num_queries"], report["num_gallery_images"], report["num_skipped_queries"]) == (8, 4, 0)
    assert sheet.is_file()
    assert "other settings" in error_of(run(*command, "--set", "seed=5"))


def test_training_errors(run, data, tmp_path):
    (tmp_path / "empty").mkdir()
    train = ["train", "cfine-tiny", "--output", tmp_path / "m", "--data-root"]
    assert "no annotation file" in error_of(run(*train, tmp_path / "empty"))
    assert "did you mean 'num_epochs'" in error_of(run(*train, data, "--set", "num_epoch=3"))
    assert "did you mean 'cfine-tiny'" in error_of(
        run("train", "cfine-tyni", "--output", tmp_path / "m", "--data-root", data)
    )
    assert "do not fill one step" in error_of(run(*train, data, "--set", "optimization.batch_size=500"))
    assert "at least 2" in error_of(run(*train, data, "--set", "optimization.batch_size=1"))
    error = error_of(run("evaluate", tmp_path / "m", "--dataset", "cuhk-pedez", "--data-root", data))
    assert "cuhk-pedes" in error


def test_convert_and_its_errors(run, tmp_path):
    settings = []
    for setting in (
        "text_num_attention_heads=4",
        "gld_num_attention_heads=1",
        "max_text_length=24",
        "image_token_ratio=0.25",
    ):
        settings += ["--set", setting]
    status, out, _ = run("convert", "cfine", CASE / "checkpoint.safetensors", tmp_path / "out", "--json", *settings)
    report = json.loads(out)
    assert status == 0
    assert report["newly_initialised"] == []
    assert any("pooler" in key for key in report["left_out"])
    assert (tmp_path / "out" / "model.safetensors").is_file()
    again = error_of(run("convert", "cfine", CASE / "checkpoint.safetensors", tmp_path / "out", *settings))
    assert "is not empty" in again
    assert "--set text_num_attention_heads" in error_of(
        run("convert", "cfine", CASE / "checkpoint.safetensors", tmp_path / "x")
    )
    import torch

    save_file({"base_model.visual.conv1.weight": torch.zeros(2, 3, 4, 4)}, tmp_path / "irra.safetensors")
    assert "should be an official cfine checkpoint" in error_of(
        run("convert", "cfine", tmp_path / "irra.safetensors", tmp_path / "x")
    )
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert "cannot be read as a checkpoint" in error_of(run("convert", "cfine", tmp_path / "text.pth", tmp_path / "x"))
    assert "did you mean 'cfine'" in error_of(run("convert", "cfin", tmp_path / "text.pth", tmp_path / "x"))


def test_dataset_commands(run, data, tmp_path):
    status, out, _ = run("datasets", "list", "--json")
    assert "cuhk-pedes" in {entry["name"] for entry in json.loads(out)["datasets"]}
    status, out, _ = run("datasets", "check", "cuhk-pedes", data, "--json")
    report = json.loads(out)
    assert report["splits"]["train"]["identities"] == 5
    assert any("11,003" in difference for difference in report["differences_from_published"])
    status, _, _ = run("datasets", "show", "cuhk-pedes", data, "--sheet", tmp_path / "s.png", "--people", 2)
    assert status == 0
    assert (tmp_path / "s.png").is_file()
    status, out, _ = run("datasets", "make", tmp_path / "made", "--identities", 5, "--images", 1, "--no-progress")
    assert status == 0
    assert (tmp_path / "made" / "CUHK-PEDES" / "reid_raw.json").is_file()
    table = tmp_path / "made" / "own.jsonl"
    table.write_text('{"image": "missing.png", "captions": ["a man"], "person_id": 1}\n{"image": 3}\n')
    status, out, lines = run("datasets", "validate", table)
    assert status == 1
    assert "missing.png" in out
    assert lines[-1].startswith("reid-zoo: error: ")


def test_a_file_with_many_problems_shows_the_first_ones(run, tmp_path):
    records = "".join(f'{{"image": "missing_{row}.png"}}\n' for row in range(30))
    (tmp_path / "people.jsonl").write_text(records)
    status, out, lines = run("datasets", "validate", tmp_path / "people.jsonl")
    assert status != 0
    assert out.count("line ") == 20
    assert "... and 10 more; --json lists all" in out
    assert "has 30 problems" in lines[-1]
    _, out, _ = run("datasets", "validate", tmp_path / "people.jsonl", "--json")
    assert len(json.loads(out)["problems"]) == 30


def test_models_are_listed_with_what_they_need_and_what_is_reported(run):
    _, out, _ = run("models", "--json")
    listed = json.loads(out)["models"]
    assert [entry["model_type"] for entry in listed] == list(METHODS)
    by_type = {entry["model_type"]: entry for entry in listed}
    assert by_type["clip_reid"]["queries"] == ["image"]
    assert by_type["clip_reid"]["optional_inputs"] == ["camera_ids", "view_ids"]
    assert all(result["source"] for entry in listed for result in entry["reported"])
    _, out, _ = run("models")
    assert "none of them is measured by us" in out


def test_one_model_is_shown_with_its_sizes(run):
    _, out, _ = run("models", "clip_reid", "--json")
    entry = json.loads(out)
    sizes = {size["preset"]: size for size in entry["sizes"]}
    assert sizes["base"]["parameters"] == entry["parameters"] == 86_142_976
    assert sizes["rn50"]["embedding_size"] == 3072
    _, out, _ = run("models", "clip_reid")
    assert "mAP 75.80, R1 89.70" in out
    assert "licence of the official release: MIT" in out
    status, _, lines = run("models", "clipreid")
    assert status == 1
    assert "did you mean 'clip_reid'?" in lines[-1]


def test_lists(run):
    _, out, _ = run("recipes", "--json")
    assert "cfine-tiny" in {entry["name"] for entry in json.loads(out)["recipes"]}
    assert run("--version")[1].startswith("reid-zoo ")
    assert run("nonsense")[0] == 2


def test_module_and_help_need_no_heavy_import():
    code = (
        "import sys; sys.argv = ['reid-zoo', '--help']\n"
        "from reid_zoo.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'lancedb', 'torchvision', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    module = subprocess.run([sys.executable, "-m", "reid_zoo", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout.startswith("reid-zoo ")
