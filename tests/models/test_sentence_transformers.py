"""A saved folder of every model type is a model of sentence-transformers: nothing to export, no remote code."""

from __future__ import annotations

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from contract_cases import SENTENCES, BuiltCase, photos
from reid_zoo import ReIDModel, ReIDProcessor

# Batches of other sizes sum in another order.
SUMMATION_ORDER = 1e-5


def assert_encodes_like_the_zoo(model: SentenceTransformer, built: BuiltCase) -> None:
    with torch.no_grad():
        images = built.model.get_image_features(**built.processor(images=photos())).embeds
        np.testing.assert_allclose(model.encode(photos(), batch_size=4), images, atol=SUMMATION_ORDER)
        if built.case.has_text:
            texts = built.model.get_text_features(**built.processor(text=list(SENTENCES))).embeds
            np.testing.assert_allclose(model.encode(list(SENTENCES), batch_size=4), texts, atol=SUMMATION_ORDER)
            scores = model.similarity(texts, images)
            torch.testing.assert_close(scores, texts @ images.T, rtol=0, atol=SUMMATION_ORDER)


def test_a_folder_loads_and_encodes(built: BuiltCase):
    model = SentenceTransformer(str(built.folder), device="cpu")
    assert "image" in model.modalities
    assert "text" in model.modalities or not built.case.has_text
    assert type(model[0].model) is built.method.model_class
    assert_encodes_like_the_zoo(model, built)
    if built.case.has_text:  # of an image-only model it reports one of two parts that are set side by side
        assert model.get_embedding_dimension() == built.model.config.embedding_size


def test_what_sentence_transformers_saves_is_a_folder_of_the_zoo(built: BuiltCase, tmp_path):
    SentenceTransformer(str(built.folder), device="cpu").save_pretrained(str(tmp_path), create_model_card=False)
    assert_encodes_like_the_zoo(SentenceTransformer(str(tmp_path), device="cpu"), built)
    model = ReIDModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, built.model.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(
        ReIDProcessor.from_pretrained(tmp_path)(images=photos())["pixel_values"],
        built.processor(images=photos())["pixel_values"],
    )
