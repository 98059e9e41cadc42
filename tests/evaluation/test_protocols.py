"""Evaluating a model: captions and images are compared by its own score, with the cameras of the records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid_zoo import PersonEncoder, ReIDProcessor, evaluate_model, evaluate_retrieval, load_dataset
from reid_zoo.data.records import PersonRecord
from reid_zoo.errors import QueryError
from reid_zoo.evaluation import encode_captions, encode_records
from reid_zoo.evaluation.protocols import score_captions
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_clip_reid_models import build as build_clip_reid
from tiny_mgcc import build_mgcc
from tiny_models import MAX_TEXT_LENGTH, draw_people, tiny_model, tiny_processor

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = draw_people(tmp_path_factory.mktemp("people"), identities=8, images=2, test_identities=5)
    return load_dataset("cuhk-pedes", root, "test")


def encoder_of(method: str) -> PersonEncoder:
    if method == "cfine":
        return PersonEncoder(tiny_model(), tiny_processor(), batch_size=4)
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    return PersonEncoder(build_mgcc(MGCCModel, text_config=sizes), tiny_processor(), batch_size=4)


def own_scores(encoder: PersonEncoder, people: Any) -> np.ndarray:
    model, processor = encoder.model, encoder.processor
    captions = [item.caption for item in people.captioned_images()]
    images = [Image.open(record.image_path).convert("RGB") for record in people]
    with torch.inference_mode():
        texts, photos = processor(text=captions), processor(images=images)
        return model.similarity(model.get_text_features(**texts), model.get_image_features(**photos)).numpy()


@pytest.mark.parametrize("method", ["cfine", "mgcc"])
def test_the_metrics_are_those_of_the_models_own_score(people, method):
    encoder = encoder_of(method)
    scores = own_scores(encoder, people)
    identities = {
        "query_person_ids": [item.record.person_id for item in people.captioned_images()],
        "gallery_person_ids": [record.person_id for record in people],
    }
    found = evaluate_model(encoder, people, batch_size=3, progress=False).as_dict()
    expected = evaluate_retrieval(similarity=scores, **identities).as_dict()
    # below the share of one of the 20 queries in any figure: no image changes its place
    assert found == pytest.approx(expected, abs=0.1)
    captions = [item.caption for item in people.captioned_images()]
    # MGCC's scores are up to 100 (the factor s); float32 sums in another order
    np.testing.assert_allclose(score_captions(encoder, captions, people.records), scores, rtol=1e-5, atol=1e-3)
    if method == "mgcc":
        coarse = (
            encode_captions(encoder, captions, progress=False)
            @ encode_records(encoder, people.records, progress=False).T
        )
        assert (coarse.argmax(axis=1) != scores.argmax(axis=1)).any(), "the coarse vectors would rank otherwise"


def test_cameras_and_views_of_the_records_are_used(people):
    model = build_clip_reid(sie_camera=True, num_cameras=3, sie_view=True, num_views=2)
    encoder = PersonEncoder(model, ReIDProcessor.build(None, image_size=(32, 16)), name="cameras")
    records = [
        PersonRecord(record.image_path, index, camera_id=index % 3, view_id=index % 2)
        for index, record in enumerate(people)
    ]
    found = encode_records(encoder, records, batch_size=4, progress=False)
    images = [Image.open(record.image_path).convert("RGB") for record in records]
    labels = [record.camera_id for record in records], [record.view_id for record in records]
    np.testing.assert_allclose(found, encoder.encode_images(images, *labels), rtol=0, atol=1e-5)
    with pytest.raises(QueryError, match="camera_id is 3"):
        encode_records(encoder, [PersonRecord(people[0].image_path, 0, camera_id=3)], progress=False)
    assert encode_records(encoder, [], progress=False).shape == (0, encoder.identity.embedding_size)


def test_a_model_without_text_is_refused_before_anything_is_encoded(people, monkeypatch):
    encoder = PersonEncoder(build_clip_reid(), ReIDProcessor.build(None, image_size=(32, 16)))
    monkeypatch.setattr(encoder, "encode_images", lambda *arguments: pytest.fail("images were encoded"))
    with pytest.raises(QueryError, match="takes images only"):
        evaluate_model(encoder, people, progress=False)
