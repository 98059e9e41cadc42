"""Image-to-text, image-to-image and two-stage evaluation of a model, against its own scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from reid_zoo import PersonEncoder, ReIDProcessor, evaluate_model, evaluate_retrieval, load_dataset
from reid_zoo.data.records import PersonDataset
from reid_zoo.errors import ConfigurationError, DatasetError, EvaluationError, QueryError
from reid_zoo.evaluation import encode_records, evaluate_image_retrieval, evaluate_in_two_stages
from reid_zoo.evaluation.protocols import score_captions
from reid_zoo.evaluation.reranking import k_reciprocal_rerank
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_clip_reid_models import build as build_clip_reid
from tiny_mgcc import build_mgcc
from tiny_models import MAX_TEXT_LENGTH, draw_people, tiny_model, tiny_processor

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> PersonDataset:
    root = draw_people(tmp_path_factory.mktemp("people"), identities=8, images=2, test_identities=5)
    return load_dataset("cuhk-pedes", root, "test")


@pytest.fixture(scope="module")
def mgcc() -> PersonEncoder:
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    return PersonEncoder(build_mgcc(MGCCModel, text_config=sizes), tiny_processor(), batch_size=4)


@pytest.fixture(scope="module")
def clip_reid() -> PersonEncoder:
    return PersonEncoder(build_clip_reid(), ReIDProcessor.build(None, image_size=(32, 16)))


def identities(people: PersonDataset) -> tuple[list[Any], list[Any]]:
    return [item.record.person_id for item in people.captioned_images()], [record.person_id for record in people]


@pytest.mark.parametrize("method", ["cfine", "mgcc"])
def test_image_to_text_is_the_same_scores_the_other_way_round(
    people: PersonDataset, mgcc: PersonEncoder, method: str
) -> None:
    encoder = mgcc if method == "mgcc" else PersonEncoder(tiny_model(), tiny_processor(), batch_size=4)
    captions = [item.caption for item in people.captioned_images()]
    scores = score_captions(encoder, captions, people.records)
    caption_ids, image_ids = identities(people)
    expected = evaluate_retrieval(similarity=scores.T, query_person_ids=image_ids, gallery_person_ids=caption_ids)
    found = evaluate_model(encoder, people, direction="image-to-text", progress=False)
    assert (found.num_queries, found.num_gallery) == (len(people), len(captions))
    # Two captions whose scores differ in the last digit may change places.
    assert found.as_dict() == pytest.approx(expected.as_dict(), abs=0.5)
    with pytest.raises(ConfigurationError, match="direction is 'text-to-text'"):
        evaluate_model(encoder, people, direction="text-to-text", progress=False)  # type: ignore[arg-type]


def test_two_stages_of_a_late_interaction(people: PersonDataset, mgcc: PersonEncoder) -> None:
    exact = evaluate_model(mgcc, people, progress=False)
    everything = evaluate_in_two_stages(mgcc, people, num_candidates=1000, progress=False)
    assert everything.metrics.as_dict() == pytest.approx(exact.as_dict(), abs=0.5)
    assert everything.positive_recall == 100.0
    few = evaluate_in_two_stages(mgcc, people, num_candidates=2, progress=False)
    assert few.num_candidates == 2
    assert 0 < few.positive_recall <= few.query_recall < 100
    assert few.metrics.rank(2) == pytest.approx(few.query_recall)
    with pytest.raises(EvaluationError, match="num_candidates is 0"):
        evaluate_in_two_stages(mgcc, people, num_candidates=0, progress=False)
    with pytest.raises(QueryError, match="ranks by its vectors alone"):
        evaluate_in_two_stages(PersonEncoder(tiny_model(), tiny_processor()), people, progress=False)


def by_cameras(people: PersonDataset, cameras: list[int | None]) -> tuple[PersonDataset, PersonDataset]:
    """The first image of every person is a query, all images are the gallery."""
    records = [replace(record, camera_id=cameras[index % len(cameras)]) for index, record in enumerate(people)]
    first = list({record.person_id: record for record in reversed(records)}.values())
    made = [PersonDataset(part, name="photos", split="test", root=people.root) for part in (first, records)]
    return made[0], made[1]


def test_image_to_image_with_and_without_cameras(people: PersonDataset, clip_reid: PersonEncoder) -> None:
    for cameras in ([0, 1], [None]):
        queries, gallery = by_cameras(people, cameras)  # type: ignore[arg-type]
        features = [encode_records(clip_reid, part.records, progress=False) for part in (queries, gallery)]
        ids: dict[str, Any] = {
            "query_person_ids": [record.person_id for record in queries],
            "gallery_person_ids": [record.person_id for record in gallery],
        }
        if cameras != [None]:
            ids["query_camera_ids"] = [record.camera_id for record in queries]
            ids["gallery_camera_ids"] = [record.camera_id for record in gallery]
        found = evaluate_image_retrieval(clip_reid, queries, gallery, progress=False)
        assert found.as_dict() == evaluate_retrieval(*features, **ids).as_dict()
        # Without cameras every query finds itself first.
        assert (found.R1 == 100.0) == (cameras == [None])
        options = {"k1": 4, "k2": 2}
        reranked = evaluate_image_retrieval(clip_reid, queries, gallery, reranking=options, progress=False)
        distances = k_reciprocal_rerank(*features, **options)
        assert reranked.as_dict() == evaluate_retrieval(similarity=-distances, **ids).as_dict()


def test_photos_that_cannot_be_evaluated(people: PersonDataset, clip_reid: PersonEncoder) -> None:
    queries, gallery = by_cameras(people, [0, None])
    with pytest.raises(DatasetError, match="has no camera, but other records do"):
        evaluate_image_retrieval(clip_reid, queries, gallery, progress=False)
    empty = PersonDataset([], name="photos", split="query", root=people.root)
    with pytest.raises(DatasetError, match=r"photos \(query\) has no images"):
        evaluate_image_retrieval(clip_reid, empty, gallery, progress=False)
    nameless = PersonDataset([replace(people[0], person_id=None)], name="photos", split="gallery", root=people.root)
    with pytest.raises(DatasetError, match="identit"):
        evaluate_image_retrieval(clip_reid, people, nameless, progress=False)
