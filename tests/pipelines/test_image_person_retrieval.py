"""Finding a person by another image, and what both pipelines share."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_zoo import Gallery, ImagePersonRetrievalPipeline, PersonEncoder, ReIDProcessor, pipeline
from reid_zoo.encoding import MissingCameraWarning
from reid_zoo.errors import GalleryError, QueryError
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_clip_reid_models import build as build_clip_reid
from tiny_mgcc import build_mgcc
from tiny_models import IMAGE_SIZE, MAX_TEXT_LENGTH, draw_people, save_tiny_model, tiny_processor

QUERY = "a woman in a red coat with a black backpack"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people")) / "CUHK-PEDES" / "imgs"


@pytest.fixture(scope="module")
def photos(people):
    return sorted(people.rglob("*.png"))


@pytest.fixture(scope="module")
def cfine(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("cfine"))


@pytest.fixture(scope="module")
def cameras(tmp_path_factory):
    """Folder of a CLIP-ReID with three cameras, without a tokenizer."""
    folder = tmp_path_factory.mktemp("clip_reid")
    build_clip_reid(sie_camera=True, num_cameras=3).clip_reid.save_pretrained(folder)
    ReIDProcessor.build(None, image_size=IMAGE_SIZE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mgcc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mgcc")
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    build_mgcc(MGCCModel, text_config=sizes).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def search(cfine, people):
    return pipeline("image-person-retrieval", model=str(cfine), gallery=str(people))


def test_an_image_finds_itself_and_answers_read_as_those_to_a_sentence(search, photos, people):
    hits = search(str(photos[3]), top_k=4)
    assert isinstance(search, ImagePersonRetrievalPipeline)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    assert hits[0]["image"] == str(photos[3])
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)  # the gallery keeps vectors in half precision
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(hit.keys() == {"rank", "score", "image", "id", "metadata"} for hit in hits)
    others = search(photos[3], top_k=3, where=f"image != '{photos[3]}'")
    assert [hit["image"] for hit in others] == [hit["image"] for hit in hits[1:]]
    assert len(search(photos[3], top_k=1000)) == len(photos)


def test_the_score_is_the_inner_product_of_the_embeddings(search, photos):
    encoder = search.encoder
    images = [Image.open(path).convert("RGB") for path in photos]
    expected = encoder.encode_images(images) @ encoder.encode_images(images[:1])[0]
    scores = {hit["image"]: hit["score"] for hit in search(photos[0], top_k=99)}
    # 2e-3: the stored values carry a relative rounding error of up to 2^-11
    np.testing.assert_allclose([scores[str(path)] for path in photos], expected, rtol=0, atol=2e-3)


def test_an_image_may_be_given_in_every_form(search, photos):
    image = Image.open(photos[2])
    alone = search(photos[2], top_k=3)
    queries = [
        str(photos[2]),
        image,
        image.convert("RGBA"),
        np.asarray(image.convert("RGB")),
        np.asarray(image.convert("RGBA")),
    ]
    for query in queries:
        assert [hit["id"] for hit in search(query, top_k=3)] == [hit["id"] for hit in alone]
    grey = np.asarray(image.convert("L"))
    together = search([*queries, grey], top_k=3)
    assert [[hit["id"] for hit in hits] for hits in together[:-1]] == [[hit["id"] for hit in alone]] * len(queries)
    assert [hit["id"] for hit in together[-1]] == [hit["id"] for hit in search(image.convert("L"), top_k=3)]
    assert search([]) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("missing.png", r"missing\.png: no such file"),
        (Path("nowhere") / "missing.png", "no such file"),
        ("a woman in a red coat", "a woman in a red coat: no such file"),
        (None, "cannot search with NoneType"),
        (b"bytes", "cannot search with bytes"),
        (["missing.png"], r"missing\.png"),
        (np.zeros((4, 4, 3)), "float64; pixels are uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\).*several images a list"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\)"),
    ],
)
def test_what_is_no_image_is_refused(search, query, message):
    with pytest.raises(QueryError, match=message) as caught:
        search(query)
    assert "\n" not in str(caught.value)


def test_unreadable_images_and_wrong_options_are_refused(search, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:100])
    for query in (broken, Image.open(broken)):
        with pytest.raises(QueryError, match="cannot be read"):
            search(query)
    with pytest.raises(QueryError, match="top_k is 0"):
        search(photos[0], top_k=0)
    with pytest.raises(TypeError):
        search(photos[0], candidates=30)
    with pytest.raises(QueryError, match=r"camera_ids are given, but the model .* does not use them"):
        search(photos[0], camera_ids=1)
    with pytest.raises(QueryError, match="view_ids are given"):
        search(photos[0], view_ids=[1])


def test_galleries_are_found_and_made_as_for_sentences(cfine, photos, people, tmp_path):
    encoder = PersonEncoder.from_pretrained(cfine)
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        gallery.add(people, progress=False)
    later = pipeline("image-person-retrieval", model=str(cfine))
    ids = [hit["image"] for hit in later(photos[5], gallery=tmp_path / "g")]
    with Gallery.open(tmp_path / "g") as without_model:
        assert [hit["image"] for hit in later(photos[5], gallery=without_model)] == ids
    with pytest.raises(GalleryError, match="nothing to search in"):
        later(photos[5])


# ---------------------------------------------------------------------------------------------------- other models


def test_a_model_with_cameras_takes_them(cameras, photos, tmp_path):
    records = [{"camera_id": number % 3} for number in range(len(photos))]
    encoder = PersonEncoder.from_pretrained(cameras)
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        gallery.add(photos, metadata=records, progress=False)
    search = pipeline("image-person-retrieval", model=str(cameras), gallery=tmp_path / "g")
    with warnings.catch_warnings():
        warnings.simplefilter("error", MissingCameraWarning)
        assert search(photos[4], camera_ids=1)[0]["score"] == pytest.approx(1, abs=1e-3)
        both = search([photos[4], photos[5]], camera_ids=[1, 0], top_k=99)
        assert both[0][0]["score"] == pytest.approx(1, abs=1e-3)
        itself = next(hit for hit in both[1] if hit["image"] == str(photos[5]))
        assert itself["score"] < 0.999, "it was taken by camera 2"
    with pytest.warns(MissingCameraWarning, match="camera_ids"):
        search(photos[4])
    with pytest.raises(QueryError, match="camera_id is 3, but the model was trained with num_cameras = 3"):
        search(photos[4], camera_ids=3)
    with pytest.raises(QueryError, match="2 camera_ids for 1 queries"):
        search(photos[4], camera_ids=[1, 2])


@pytest.mark.filterwarnings("ignore::reid_zoo.encoding.MissingCameraWarning")
def test_a_model_without_text_says_which_pipeline_to_use(cameras, photos):
    search = pipeline("text-person-retrieval", model=str(cameras), gallery=photos[:3])
    with pytest.raises(QueryError, match=r'takes images only.*pipeline\("image-person-retrieval"\)') as caught:
        search(QUERY)
    assert "\n" not in str(caught.value)


def test_mgcc_ranks_sentences_by_its_own_score_and_images_by_vectors(mgcc, photos):
    by_text = pipeline("text-person-retrieval", model=str(mgcc), gallery=photos)
    model, processor = by_text.model, by_text.processor
    images = model.get_image_features(**processor(images=[Image.open(path).convert("RGB") for path in photos]))
    texts = model.get_text_features(**processor(text=QUERY))
    scores = model.similarity(texts, images)[0]
    hits = by_text(QUERY, top_k=99)
    found = {hit["image"]: hit["score"] for hit in hits}
    # tokens are kept in half precision and similarities multiplied by s = 100
    np.testing.assert_allclose([found[str(path)] for path in photos], scores.numpy(force=True), rtol=0, atol=0.1)
    assert [hit["score"] for hit in hits] == sorted(found.values(), reverse=True)
    few = by_text(QUERY, top_k=2, candidates=4)
    assert len(few) == 2
    assert all(hit["score"] == pytest.approx(found[hit["image"]], abs=1e-3) for hit in few)
    with pytest.raises(QueryError, match="candidates is 4, but top_k = 10"):
        by_text(QUERY, candidates=4)
    by_image = pipeline("image-person-retrieval", model=str(mgcc), gallery=by_text.gallery)
    assert by_image(photos[1], top_k=1)[0]["image"] == str(photos[1])
    assert by_image(photos[1], top_k=1)[0]["score"] == pytest.approx(1, abs=1e-3)


# ------------------------------------------------------------------------------------------------- what both share


@pytest.mark.parametrize("task", ["text-person-retrieval", "image-person-retrieval"])
def test_options_given_when_making_the_pipeline_are_its_defaults(cfine, photos, search, task):
    made = pipeline(task, model=str(cfine), gallery=search.gallery, top_k=2, where="id < 5")
    query = QUERY if task.startswith("text") else photos[7]
    assert len(made(query)) == 2
    assert len(made(query, top_k=4)) == 4
    assert {hit["id"] for hit in made(query, top_k=99)} == set(range(5))
    with pytest.raises(TypeError, match=rf"{task} takes top_k, where.*, not topk"):
        pipeline(task, model=str(cfine), topk=3)


@pytest.mark.parametrize(
    "imports",
    [
        "from reid_zoo import ImagePersonRetrievalPipeline",
        "from reid_zoo.pipelines.person_retrieval import PersonRetrievalPipeline",
    ],
)
def test_both_tasks_are_known_once_whatever_the_order_of_imports(imports):
    code = (
        f"{imports}\n"
        "from transformers.pipelines import PIPELINE_REGISTRY as registry\n"
        "for task in ('text-person-retrieval', 'image-person-retrieval'):\n"
        "    print(registry.check_task(task)[1]['impl'].__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["TextPersonRetrievalPipeline", "ImagePersonRetrievalPipeline"], done.stderr[-2000:]
    assert "already registered" not in done.stderr
