"""From records to batches: pairs in file order, labels, the cache, captions of the same person."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from reid_zoo.data import load_dataset
from reid_zoo.data.collators import (
    EvaluationImages,
    ImageCollator,
    ImageTextCollator,
    ImageTextPairs,
    TrainingImages,
)
from reid_zoo.data.records import PersonDataset
from reid_zoo.data.samplers import SeededIndex
from reid_zoo.data.transforms import CaptionAugmentation, ImageAugmentation
from reid_zoo.errors import DatasetError
from tiny_models import IMAGE_SIZE, MAX_TEXT_LENGTH, draw_people, tiny_processor

STILL = ImageAugmentation(horizontal_flip=0.0)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return load_dataset("cuhk-pedes", draw_people(tmp_path_factory.mktemp("people"), identities=5), "train")


def test_there_is_one_item_per_caption_in_file_order(people):
    pairs = ImageTextPairs(people, tiny_processor(), STILL)
    assert len(pairs) == sum(len(record.captions) for record in people)
    expected = [(caption, record.person_id) for record in people for caption in record.captions]
    labels = people.person_labels()
    assert [(pairs[i]["caption"], pairs[i]["person_label"]) for i in range(len(pairs))] == [
        (caption, labels[person]) for caption, person in expected
    ]


@pytest.mark.filterwarnings("ignore:a sentence of")
def test_a_batch_is_what_the_processor_makes_of_images_and_captions(people):
    processor = tiny_processor()
    pairs = ImageTextPairs(people, processor, STILL)
    batch = ImageTextCollator(processor)([pairs[i] for i in range(3)])
    images = [Image.open(pairs.items[i].record.image_path) for i in range(3)]
    expected = processor(images=images, text=[pairs.items[i].caption for i in range(3)], return_tensors="pt")
    assert batch["pixel_values"].shape == (3, 3, *IMAGE_SIZE)
    # One rescales before and one after the resize's rounding to 8 bits: half a grey level, in units of the deviation.
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], atol=0.5 / 255 / 0.22 + 1e-5, rtol=0)
    assert batch["input_ids"].shape == (3, MAX_TEXT_LENGTH)
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["person_labels"].dtype == torch.int64


@pytest.mark.filterwarnings("ignore:a sentence of")
def test_a_worker_collates_into_shared_memory_what_the_main_process_would_make(people):
    processor = tiny_processor()
    pairs = ImageTextPairs(people, processor, ImageAugmentation(erase_probability=0.5))
    order = [SeededIndex(index, index) for index in range(4)]
    collate = _SaysWhetherShared(ImageTextCollator(processor))
    expected, batch = (
        next(iter(DataLoader(pairs, batch_size=4, sampler=order, collate_fn=collate, num_workers=workers)))
        for workers in (0, 1)
    )
    assert not expected.pop("was_shared")
    assert batch.pop("was_shared")  # so that it is not copied there once more on its way
    assert expected.keys() == batch.keys()
    for name, value in expected.items():
        assert torch.equal(batch[name], value)


class _SaysWhetherShared:
    def __init__(self, collate):
        self.collate = collate

    def __call__(self, items):
        batch = self.collate(items)
        return {**batch, "was_shared": batch["pixel_values"].is_shared()}


def test_swapped_captions_are_of_the_same_person(people):
    torch.manual_seed(0)
    pairs = ImageTextPairs(people, tiny_processor(), STILL, CaptionAugmentation(same_person_swap=1.0))
    mine = {record.person_id: set() for record in people}
    for record in people:
        mine[record.person_id] |= set(record.captions)
    person = pairs.items[0].record.person_id
    assert {pairs[0]["caption"] for _ in range(200)} == mine[person]


def test_the_cache_reads_every_image_once(people, monkeypatch):
    from reid_zoo.data import collators

    read = []
    load = collators.load_image
    monkeypatch.setattr(collators, "load_image", lambda path, **options: read.append(path) or load(path, **options))
    for cache, times in ((True, 1), (False, 2)):
        read.clear()
        pairs = ImageTextPairs(people, tiny_processor(), STILL, cache_images=cache)
        first, second = pairs[0]["pixel_values"], pairs[0]["pixel_values"]
        assert torch.equal(first, second)
        assert len(read) == times


def test_records_without_identity_cannot_be_trained_on(people):
    anonymous = PersonDataset(
        [dataclasses.replace(people[0], person_id=None)], name="mine", split="train", root=people.root
    )
    with pytest.raises(DatasetError, match="has no person_id"):
        ImageTextPairs(anonymous, tiny_processor(), STILL)


LIVELY = ImageAugmentation(crop_padding=4, color_jitter=0.3, erase_probability=0.5, erase_fill="noise")


def test_an_item_follows_from_its_seed_and_leaves_the_generator_alone(people):
    swap = CaptionAugmentation(same_person_swap=0.5, word_dropout=0.3)
    pairs = ImageTextPairs(people, tiny_processor(), LIVELY, swap)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = pairs[SeededIndex(2, 11)], pairs[SeededIndex(2, 12)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again = pairs[SeededIndex(2, 11)]
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert first["caption"] == again["caption"]
    assert not torch.equal(first["pixel_values"], second["pixel_values"])


def with_labels(people, cameras=True):
    records = [
        dataclasses.replace(record, captions=(), camera_id=index % 3 if cameras else None, view_id=index % 2)
        for index, record in enumerate(people)
    ]
    return PersonDataset(records, name="mine", split="train", root=people.root)


def test_images_need_no_captions(people):
    images = TrainingImages(with_labels(people), tiny_processor(), STILL, labels=("camera_ids", "view_ids"))
    assert len(images) == len(people)
    assert images.person_label_of_items() == [people.person_labels()[record.person_id] for record in people]
    batch = ImageCollator(image_ids=True)([images[index] for index in range(4)])
    assert set(batch) == {"pixel_values", "person_labels", "camera_ids", "view_ids", "image_ids"}
    assert batch["camera_ids"].tolist() == [0, 1, 2, 0]
    assert batch["view_ids"].tolist() == [0, 1, 0, 1]
    assert batch["image_ids"].tolist() == [0, 1, 2, 3]
    assert batch["person_labels"].tolist() == images.person_label_of_items()[:4]
    plain = ImageCollator()([TrainingImages(with_labels(people), tiny_processor(), STILL)[0]])
    assert set(plain) == {"pixel_values", "person_labels"}


def test_a_camera_that_is_needed_but_missing_is_named(people):
    with pytest.raises(DatasetError, match=r"has no camera_id, but the model's side information needs camera_ids"):
        TrainingImages(with_labels(people, cameras=False), tiny_processor(), labels=("camera_ids",))


def test_evaluation_images_are_those_of_the_processor(people):
    processor = tiny_processor()
    images = EvaluationImages(people.records, processor)
    expected = processor(images=[Image.open(record.image_path) for record in people], return_tensors="pt")
    assert torch.equal(torch.stack([images[index] for index in range(len(images))]), expected["pixel_values"])
