"""The pipeline as the README shows it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_zoo import Gallery, PersonEncoder, ReIDModel, TextPersonRetrievalPipeline, pipeline
from reid_zoo.errors import GalleryError, ModelMismatchError, QueryError
from tiny_models import draw_people, save_tiny_model, tiny_model, tiny_processor

QUERY = "a woman in a red coat with a black backpack"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people")) / "CUHK-PEDES" / "imgs"


@pytest.fixture(scope="module")
def search(model_folder, people):
    return pipeline("text-person-retrieval", model=str(model_folder), gallery=str(people))


def test_answers_are_ranked_with_score_image_and_metadata(search, people):
    hits = search(QUERY, top_k=5)
    assert isinstance(search, TextPersonRetrievalPipeline)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(hit["image"].startswith(str(people)) and hit["metadata"] == {} for hit in hits)


def test_the_score_is_the_models_own(search, model_folder):
    model, processor = ReIDModel.from_pretrained(model_folder), tiny_processor()
    (hit,) = search(QUERY, top_k=1)
    picture = Image.open(hit["image"]).convert("RGB")
    score = model.similarity(
        model.get_text_features(**processor(text=QUERY)), model.get_image_features(**processor(images=picture))
    )
    assert hit["score"] == pytest.approx(score.item(), abs=2e-3)  # the gallery keeps vectors in half precision


def test_a_list_of_queries_gives_a_list_of_lists(search):
    one, two = search([QUERY, "a man in a blue jacket"], top_k=3)
    assert [hit["image"] for hit in one] == [hit["image"] for hit in search(QUERY, top_k=3)]
    assert len(two) == 3


def test_top_k_larger_than_the_gallery_gives_all(search):
    assert len(search(QUERY, top_k=1000)) == len(search.gallery) == 12


def test_bad_queries_are_refused(search):
    for query in ("", "   ", ["fine", ""]):
        with pytest.raises(QueryError, match="empty"):
            search(query)
    with pytest.raises(QueryError, match="knows no word of the query '穿红色外套的女人'"):
        search("穿红色外套的女人")
    with pytest.raises(QueryError, match="top_k"):
        search(QUERY, top_k=0)
    with pytest.raises(TypeError):
        search(QUERY, topk=3)


def test_galleries_of_every_kind(model_folder, people, tmp_path):
    encoder = PersonEncoder.from_pretrained(model_folder)
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        gallery.add(people, metadata={"camera_id": [3] + [1] * 11}, progress=False)
    expected = pipeline("text-person-retrieval", model=str(model_folder), gallery=str(tmp_path / "g"))
    images = sorted(people.rglob("*.png"))
    listed = pipeline("text-person-retrieval", model=str(model_folder), gallery=images)
    opened = pipeline("text-person-retrieval", model=str(model_folder), gallery=Gallery.open(tmp_path / "g"))
    pictures = pipeline("text-person-retrieval", model=str(model_folder), gallery=[Image.open(path) for path in images])
    later = pipeline("text-person-retrieval", model=str(model_folder))
    scores = [hit["score"] for hit in expected(QUERY)]
    for other in (listed, opened, pictures):
        assert [hit["score"] for hit in other(QUERY)] == scores
    assert [hit["score"] for hit in later(QUERY, gallery=str(tmp_path / "g"))] == scores
    assert [hit["metadata"] for hit in expected(QUERY, where="camera_id = 3")] == [{"camera_id": 3}]
    with pytest.raises(GalleryError, match="nothing to search in"):
        later(QUERY)
    with pytest.raises(GalleryError, match="does not exist"):
        later(QUERY, gallery=str(tmp_path / "nothing"))


def test_a_gallery_of_another_model_is_refused_by_name(model_folder, people, tmp_path):
    other = PersonEncoder(tiny_model(seed=1), tiny_processor(), name="the-other-model")
    with Gallery.create(tmp_path / "g", other) as gallery:
        gallery.add(people, progress=False)
    with pytest.raises(ModelMismatchError, match=rf"the-other-model.*{model_folder.name}"):
        pipeline("text-person-retrieval", model=str(model_folder), gallery=str(tmp_path / "g"))


def test_a_folder_without_a_readable_image_says_why(model_folder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(GalleryError, match=r"broken\.jpg"):
        pipeline("text-person-retrieval", model=str(model_folder), gallery=str(tmp_path))


def test_saving_does_not_poison_the_model(search, tmp_path):
    before = set(search.model.config.to_dict())
    search.save_pretrained(tmp_path / "saved")
    assert set(search.model.config.to_dict()) == before
    assert "custom_pipelines" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = pipeline("text-person-retrieval", model=str(tmp_path / "saved"), gallery=search.gallery)
    assert [hit["score"] for hit in again(QUERY)] == [hit["score"] for hit in search(QUERY)]


@pytest.mark.parametrize(
    "imports",
    [
        "import reid_zoo; from transformers import pipeline",
        "from transformers import pipeline; import reid_zoo",
        "from reid_zoo import pipeline",
        "import reid_zoo; from transformers import BertModel, Trainer, pipeline",
    ],
)
def test_the_task_is_known_whatever_the_order_of_imports(model_folder, people, imports):
    made = f"pipeline('text-person-retrieval', model={str(model_folder)!r}, gallery={str(people)!r})"
    code = f"{imports}; print(len({made}('a man')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "10", done.stderr[-2000:]


def test_vectors_are_searched_as_they_are(search):
    vector = search.encoder.encode_texts([QUERY])[0]
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)
    assert [hit.image for hit in search.gallery.search(vector, top_k=3)] == [
        hit["image"] for hit in search(QUERY, top_k=3)
    ]
