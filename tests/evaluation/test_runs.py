"""Runs: the same figures as the plain evaluation, for every protocol, with answers that obey it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from divided_people import divided
from reid_zoo import PersonEncoder, evaluate_model, evaluate_retrieval, load_dataset
from reid_zoo.data.records import PersonDataset
from reid_zoo.errors import ConfigurationError, DatasetError, QueryError
from reid_zoo.evaluation.runs import natural_protocol, run_evaluation
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_mgcc import build_mgcc
from tiny_models import MAX_TEXT_LENGTH, draw_people, tiny_model, tiny_processor

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> PersonDataset:
    root = draw_people(tmp_path_factory.mktemp("people"), identities=9, images=3, test_identities=6)
    return load_dataset("cuhk-pedes", root, "test")


@pytest.fixture(scope="module")
def encoder() -> PersonEncoder:
    return PersonEncoder(tiny_model(), tiny_processor(), batch_size=8)


@pytest.fixture(scope="module")
def late_interaction() -> PersonEncoder:
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    return PersonEncoder(build_mgcc(MGCCModel, text_config=sizes), tiny_processor(), batch_size=8)


@pytest.mark.parametrize("protocol", ["text-to-image", "image-to-text"])
@pytest.mark.parametrize("kind", ["vectors", "late interaction"])
def test_figures_and_answers_of_sentences(people, encoder, late_interaction, protocol, kind):
    model = encoder if kind == "vectors" else late_interaction
    run = run_evaluation(model, people, protocol=protocol, progress=False)
    plain = evaluate_model(model, people, direction=protocol, progress=False)
    assert run.metrics.as_dict() == pytest.approx(plain.as_dict(), abs=0.1)
    scores = run.score_rows(np.arange(len(run.query_records)))
    assert scores.shape == (run.metrics.num_queries, run.metrics.num_gallery)
    again = evaluate_retrieval(
        similarity=scores, query_person_ids=run.query_person_ids, gallery_person_ids=run.gallery_person_ids
    )
    assert run.metrics.as_dict() == pytest.approx(again.as_dict(), abs=0.1)
    answers = run.answers(3)
    right = answers.right(run.query_person_ids, run.gallery_person_ids)
    assert 100 * right[:, 0].mean() == pytest.approx(run.metrics.R1, abs=0.1)
    assert len(run.query_texts) == (len(run.query_records) if protocol == "text-to-image" else 0)
    assert len(run.gallery_texts) == (len(run.gallery_records) if protocol == "image-to-text" else 0)


@pytest.mark.parametrize("reranking", [None, {"k1": 3, "k2": 2}])
@pytest.mark.parametrize("cameras", [True, False])
def test_images_search_images_of_other_cameras(people, encoder, cameras, reranking):
    run = run_evaluation(encoder, divided(people, cameras), reranking=reranking, progress=False)
    assert run.protocol == "image-to-image"
    assert run.reranked == (reranking is not None)
    answers = run.answers(len(run.gallery_records))
    shown = np.isfinite(answers.scores)
    for row, query in enumerate(run.query_records):
        for index in answers.indices[row][shown[row]]:
            item = run.gallery_records[int(index)]
            assert not cameras or item.person_id != query.person_id or item.camera_id != query.camera_id
    if not cameras:
        assert shown.all()
    right = answers.right(run.query_person_ids, run.gallery_person_ids)[:, 0]
    assert 100 * right[run.metrics.valid].mean() == pytest.approx(run.metrics.R1, abs=0.1)


def test_the_protocol_follows_the_data(people):
    assert natural_protocol(people) == "text-to-image"
    assert natural_protocol(divided(people)) == "image-to-image"


def test_what_does_not_fit_is_named(people, encoder):
    with pytest.raises(ConfigurationError, match="protocol is 'i2t'"):
        run_evaluation(encoder, people, protocol="i2t", progress=False)
    with pytest.raises(ConfigurationError, match="re-ranking"):
        run_evaluation(encoder, people, reranking={}, progress=False)
    with pytest.raises(DatasetError, match="no captions"):
        run_evaluation(encoder, divided(people), protocol="text-to-image", progress=False)
    half = [replace(record, camera_id=None) if i == 4 else record for i, record in enumerate(divided(people))]
    with pytest.raises(DatasetError, match="has no camera"):
        run_evaluation(encoder, PersonDataset(half, name="drawn", split="test", root=people.root), progress=False)
    from tiny_clip_reid_models import build

    images_only = PersonEncoder(build(), tiny_processor())
    with pytest.raises(QueryError, match="images only"):
        run_evaluation(images_only, people, progress=False)
