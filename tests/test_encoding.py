"""PersonEncoder: what a model needs of images and sentences, cameras included, and its own score."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid_zoo import PersonEncoder, ReIDProcessor
from reid_zoo.encoding import MissingCameraWarning
from reid_zoo.errors import QueryError
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_clip_reid_models import build as build_clip_reid
from tiny_mgcc import build_mgcc
from tiny_models import IMAGE_SIZE, MAX_TEXT_LENGTH, tiny_model, tiny_processor

torch.set_num_threads(1)
SENTENCES = ["a woman in a red coat", "a man in a blue jacket and brown shoes", "a green dress", "the bag", "a coat"]


def pictures(count: int = 5) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*IMAGE_SIZE, 3), np.uint8)) for _ in range(count)]


def camera_encoder(**fields: Any) -> PersonEncoder:
    model = build_clip_reid(**{"sie_camera": True, "num_cameras": 4, **fields})
    return PersonEncoder(model, ReIDProcessor.build(None, image_size=IMAGE_SIZE), name="cameras", batch_size=2)


def mgcc_encoder(model_class: type = MGCCModel, **fields: Any) -> PersonEncoder:
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    return PersonEncoder(build_mgcc(model_class, text_config=sizes, **fields), tiny_processor(), batch_size=2)


# ----------------------------------------------------------------------------------------------------------- cameras


def test_every_image_gets_the_embedding_of_its_camera_whatever_the_batches() -> None:
    encoder = camera_encoder()
    images = pictures()
    cameras = [3, 0, np.int64(2), 1.0, 3]
    found = encoder.encode_images(images, cameras)
    pixels = encoder.processor.process_images(images)
    with torch.inference_mode():
        expected = encoder.model.get_image_features(pixels, camera_ids=torch.tensor([3, 0, 2, 1, 3])).embeds
    # 1e-5: batches of two instead of five change the order of float32 sums
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)
    assert encoder.uses_camera_ids
    assert not encoder.uses_view_ids
    other = encoder.encode_images(images, [0, 1, 0, 0, 0])
    assert (np.abs(found - other).max(axis=1) > 1e-3).all(), "every camera matters"


def test_images_without_a_camera_are_encoded_without_and_that_is_said_once() -> None:
    encoder = camera_encoder()
    images = pictures()
    with pytest.warns(MissingCameraWarning, match="'cameras' was trained with camera_ids") as caught:
        without = encoder.encode_images(images)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        some = encoder.encode_images(images, [2, None, 1, float("nan"), 0])
        complete = encoder.encode_images(images, [2, 3, 1, 3, 0])
    expected = complete.copy()
    expected[[1, 3]] = without[[1, 3]]
    np.testing.assert_allclose(some, expected, rtol=0, atol=1e-5)  # other batches, see above


def test_with_cameras_and_views_an_image_needs_both() -> None:
    encoder = camera_encoder(sie_view=True, num_views=2)
    images = pictures(3)
    with pytest.warns(MissingCameraWarning, match="camera_ids and view_ids"):
        found = encoder.encode_images(images, [1, 2, None], [1, None, 0])
    with torch.inference_mode():
        one = encoder.model.get_image_features(
            encoder.processor.process_images(images[:1]), camera_ids=torch.tensor([1]), view_ids=torch.tensor([1])
        ).embeds
    np.testing.assert_allclose(found[:1], one.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1:], encoder.encode_images(images)[1:], rtol=0, atol=1e-5)
    assert encoder.label_problem(1, 2) == "view_id is 2, but the model was trained with num_views = 2, numbered from 0"


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([0, 1, 2, 3, 4], "image 4: camera_id is 4, but the model was trained with num_cameras = 4"),
        ([0, -1, 2, 3, 3], "image 1: camera_id is -1"),
        ([0, "1", 2, 3, 3], "image 1: camera_id is '1', but must be a whole number from 0 to 3"),
        ([0, True, 2, 3, 3], "image 1: camera_id is True"),
        ([0, 1.5, 2, 3, 3], r"image 1: camera_id is 1\.5"),
        ([0], "there are 1 camera_ids for 5 images"),
    ],
)
def test_cameras_that_are_none_of_the_models_are_refused(cameras: list[Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        camera_encoder().encode_images(pictures(), cameras)


def test_a_model_that_does_not_use_cameras_ignores_them() -> None:
    for encoder in (PersonEncoder(tiny_model(), tiny_processor()), camera_encoder(sie_camera=False)):
        images = pictures(2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = encoder.encode_images(images)
            np.testing.assert_array_equal(encoder.encode_images(images, [99, None], ["x", None]), plain)
        assert encoder.label_problem("anything") is None
        assert not encoder.uses_camera_ids
        assert not encoder.uses_view_ids


# ------------------------------------------------------------------------------------------------------- text or not


def test_sentences_are_refused_by_a_model_that_takes_images_only() -> None:
    encoder = camera_encoder()
    assert not encoder.supports_text
    for use in (encoder.encode_texts, encoder.encode_text_features, lambda texts: encoder.check_query(texts[0])):
        with pytest.raises(QueryError, match=r"'cameras' \(clip_reid\) takes images only.*image-person-retrieval"):
            use(["a man"])
    assert PersonEncoder(tiny_model(), tiny_processor()).supports_text


# --------------------------------------------------------------------------------------------------- late interaction


@pytest.mark.parametrize("text_padding", ["zero", "mask"])
def test_the_score_is_the_models_own_whatever_the_batches(text_padding: str) -> None:
    encoder = mgcc_encoder(text_padding=text_padding)
    images = pictures()
    assert encoder.scores_by_late_interaction
    features = encoder.encode_image_features(images)
    texts = encoder.encode_text_features(SENTENCES)
    assert set(features) == {"embeds", "tokens", "token_mask"}, "what a gallery can store"
    found = encoder.similarity(texts, features)
    with torch.inference_mode():
        model, processor = encoder.model, encoder.processor
        expected = model.similarity(
            model.get_text_features(**processor(text=SENTENCES)), model.get_image_features(**processor(images=images))
        ).numpy()
    assert found.dtype == np.float32
    # scores of up to 100 (the factor s); float32 sums in another order
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    part = encoder.similarity(texts.take(slice(1, 3)), features.take(torch.tensor([4, 0])))
    np.testing.assert_allclose(part, expected[1:3][:, [4, 0]], rtol=0, atol=1e-3)
    np.testing.assert_allclose(encoder.encode_images(images), features.embeds.numpy(), rtol=0, atol=1e-5)


def test_a_training_model_scores_like_its_inference_part() -> None:
    from reid_zoo.models.mgcc.modeling_mgcc import MGCCForTraining

    encoder = mgcc_encoder(MGCCForTraining)
    assert encoder.scores_by_late_interaction
    scores = encoder.similarity(encoder.encode_text_features(SENTENCES), encoder.encode_image_features(pictures()))
    assert scores.shape == (5, 5)


def test_other_models_need_vectors_only() -> None:
    encoder = PersonEncoder(tiny_model(), tiny_processor(), batch_size=2)
    assert not encoder.scores_by_late_interaction
    images, texts = encoder.encode_image_features(pictures()), encoder.encode_text_features(SENTENCES)
    assert set(images) == set(texts) == {"embeds"}
    expected = encoder.encode_texts(SENTENCES) @ encoder.encode_images(pictures()).T
    np.testing.assert_allclose(encoder.similarity(texts, images), expected, rtol=0, atol=1e-6)


def test_encoding_nothing_gives_no_rows_and_leaves_the_model_as_it_was() -> None:
    encoder = PersonEncoder(tiny_model(), tiny_processor())
    encoder.model.train()
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, encoder.identity.embedding_size)
    first = encoder.encode_texts(SENTENCES)
    assert encoder.model.training
    np.testing.assert_array_equal(encoder.encode_texts(SENTENCES), first)
