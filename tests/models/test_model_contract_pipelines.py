"""The zoo's pipelines take a saved folder of every model type, and rank as the model itself does."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from contract_cases import BATCH, SENTENCES, BuiltCase, photos
from reid_zoo import pipeline
from reid_zoo.encoding import MissingCameraWarning
from reid_zoo.errors import QueryError

FLOAT16_STORAGE = 2e-3  # a gallery keeps vectors and tokens in float16


def assert_ranking(hits: list[dict], scores: torch.Tensor) -> None:
    """All photos, best first, with the scores that the model gives them."""
    assert [hit["rank"] for hit in hits] == list(range(1, BATCH + 1))
    assert len({hit["id"] for hit in hits}) == BATCH
    expected = scores.sort(descending=True).values
    np.testing.assert_allclose(
        [hit["score"] for hit in hits], expected, atol=FLOAT16_STORAGE * float(scores.abs().max())
    )


def test_text_person_retrieval(built_with_text: BuiltCase):
    built = built_with_text
    search = pipeline("text-person-retrieval", model=str(built.folder), gallery=photos())
    answers = search(list(SENTENCES), top_k=BATCH)
    with torch.no_grad():
        texts = built.model.get_text_features(**built.processor(text=list(SENTENCES)))
        images = built.model.get_image_features(**built.processor(images=photos()))
        if built.case.single_vector:  # a gallery's scores are inner products, which order as the model's score
            scores = texts.embeds @ images.embeds.T
        else:
            scores = built.model.similarity(texts, images)
    for hits, expected in zip(answers, scores, strict=True):
        assert_ranking(hits, expected)
    assert search(SENTENCES[0], top_k=1)[0]["id"] == answers[0][0]["id"]


def test_image_person_retrieval(built: BuiltCase):
    config = built.model.config
    labels = {"camera_ids": 1} if config.uses_camera_ids else {}
    labels |= {"view_ids": 1} if config.uses_view_ids else {}
    says_once = pytest.warns(MissingCameraWarning) if labels else contextlib.nullcontext()
    with says_once:
        search = pipeline("image-person-retrieval", model=str(built.folder), gallery=photos())
    hits = search(photos()[0], top_k=BATCH, **labels)
    with torch.no_grad():
        query = built.processor(images=photos(1))
        query |= {name: torch.tensor([value]) for name, value in labels.items()}
        queried = built.model.get_image_features(**query).embeds
        images = built.model.get_image_features(**built.processor(images=photos())).embeds
    assert_ranking(hits, (queried @ images.T)[0])


def test_an_image_only_model_says_so(built_without_text: BuiltCase):
    built = built_without_text
    with pytest.raises(QueryError, match="image"):
        built.model.get_text_features(input_ids=torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(QueryError, match="image"):
        built.processor(text=SENTENCES[0])
    with pytest.raises(QueryError, match="image"):
        pipeline("text-person-retrieval", model=str(built.folder))(SENTENCES[0], gallery=photos())
