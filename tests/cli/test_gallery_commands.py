"""`index` and `search` with models that compare tokens, that use cameras, or that take images only."""

from __future__ import annotations

import json

import pytest

from reid_zoo import ReIDProcessor
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_clip_reid_models import build as build_clip_reid
from tiny_mgcc import build_mgcc
from tiny_models import IMAGE_SIZE, MAX_TEXT_LENGTH, draw_people, tiny_processor


@pytest.fixture
def run(run):
    """`run("search", ...)` → (exit status, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status, out, lines = run(*arguments)
        return status, out, "\n".join(lines)

    return call


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people")) / "CUHK-PEDES" / "imgs"


@pytest.fixture(scope="module")
def mgcc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mgcc")
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    build_mgcc(MGCCModel, text_config=sizes).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cameras(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip_reid")
    build_clip_reid(sie_camera=True, num_cameras=3).clip_reid.save_pretrained(folder)
    ReIDProcessor.build(None, image_size=IMAGE_SIZE).save_pretrained(folder)
    return folder


def test_candidates_trade_exactness_for_speed_and_that_is_said(run, mgcc, images, tmp_path):
    gallery = tmp_path / "g"
    assert run("index", mgcc, images, "--gallery", gallery, "--no-progress")[0] == 0
    status, out, err = run("search", gallery, "a woman in a red coat", "--top-k", 3, "--json")
    exact = {hit["image"]: hit["score"] for hit in json.loads(out)["hits"]}
    assert (status, len(exact)) == (0, 3)
    assert "approximate" not in err
    status, out, err = run("search", gallery, "a woman in a red coat", "--top-k", 3, "--candidates", 5, "--json")
    assert (status, len(json.loads(out)["hits"])) == (0, 3)
    assert "note: not every image was scored; the answers are approximate." in err
    assert "candidates is 2, but top_k = 3" in run("search", gallery, "a man", "--top-k", 3, "--candidates", 2)[2]
    status, out, _ = run("search", gallery, "--image", next(iter(exact)), "--top-k", 1, "--json")
    assert json.loads(out)["hits"][0]["image"] == next(iter(exact))


def test_a_model_with_cameras_takes_them_from_the_metadata_and_the_query(run, cameras, images, tmp_path):
    files = sorted(images.rglob("*.png"))
    table = images / "cameras.jsonl"
    rows = [{"image": str(file.relative_to(images)), "camera_id": n % 4} for n, file in enumerate(files)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gallery = tmp_path / "g"
    status, out, err = run(
        "index", cameras, images, "--gallery", gallery, "--metadata", table, "--no-progress", "--json"
    )
    report = json.loads(out)
    assert status == 0
    assert (report["added"], len(report["failed"])) == (9, 3)
    assert "camera_id is 3, but the model was trained with num_cameras = 3" in err
    status, out, err = run("search", gallery, "--image", files[1], "--camera-id", 1, "--top-k", 1, "--json")
    (hit,) = json.loads(out)["hits"]
    assert (hit["image"], hit["score"]) == (str(files[1]), pytest.approx(1, abs=1e-3))
    assert "note" not in err
    status, out, err = run("search", gallery, "--image", files[1], "--top-k", 1, "--json")
    assert status == 0
    assert "was trained with camera_ids" in err
    for arguments, message in (
        (["--image", files[1], "--camera-id", 3], "camera_id is 3"),
        (["--image", files[1], "--view-id", 0], "does not use them"),
        (["a man in a blue jacket"], "takes images only"),
    ):
        status, out, err = run("search", gallery, *arguments)
        assert (status, out) == (1, "")
        assert message in err.splitlines()[-1]
