"""From records to batches: pairs in file order, labels, the cache, captions of the same person."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from reid_zoo.data import load_dataset
from reid_zoo.data.collators import ImageTextCollator, ImageTextPairs
from reid_zoo.data.records import PersonDataset
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
        first, second = pairs[0]["pixels"], pairs[0]["pixels"]
        assert torch.equal(first, second)
        assert len(read) == times


def test_records_without_identity_cannot_be_trained_on(people):
    anonymous = PersonDataset(
        [dataclasses.replace(people[0], person_id=None)], name="mine", split="train", root=people.root
    )
    with pytest.raises(DatasetError, match="has no person_id"):
        ImageTextPairs(anonymous, tiny_processor(), STILL)
