"""The order of training items: P×K batches as the specs say, the same for every restart, worker and number of processes."""

from __future__ import annotations

from collections import Counter

import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, Dataset

from reid_zoo.data.samplers import IdentitySampler, RandomOrder, SeededIndex, TrainingSampler
from reid_zoo.errors import ConfigurationError

LABELS = [label for label, count in enumerate([9, 4, 7, 1, 12, 5, 3, 8]) for _ in range(count)]

sizes = st.lists(st.integers(1, 15), min_size=4, max_size=12)


def labels_of(counts: list[int]) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


def chunks(values: list, size: int) -> list[list]:
    return [values[start : start + size] for start in range(0, len(values), size)]


@settings(deadline=None)
@given(sizes, st.integers(2, 4), st.integers(2, 4), st.integers(0, 3))
def test_a_pass_is_the_one_of_the_specification(counts, identities, images, epoch):
    labels = labels_of(counts)
    sampler = IdentitySampler(labels, identities, images, seed=5)
    indices = sampler.epoch_indices(epoch)
    assert len(indices) == sampler.epoch_length(epoch)
    groups = Counter()
    for batch in chunks(indices, identities * images):
        people = [labels[index] for index in batch]
        assert len(people) == identities * images, "batches are complete"
        of_group = [set(group) for group in chunks(people, images)]
        assert all(len(found) == 1 for found in of_group), "the images of a person are next to each other"
        assert len(set(people)) == identities
        groups.update(found.pop() for found in of_group)
    for label, count in enumerate(counts):
        drawn = Counter(index for index in indices if labels[index] == label)
        if count >= images:
            assert not drawn or max(drawn.values()) == 1, "without replacement"
        assert groups[label] <= max(1, count // images)
    # It ends when fewer than P people have groups left.
    assert sum(groups[label] < max(1, count // images) for label, count in enumerate(counts)) < identities


def test_a_person_with_too_few_images_gives_one_group_drawn_with_replacement():
    sampler = IdentitySampler([0, 0, 0, 1, 2, 2, 2, 2], 3, 4)
    for epoch in range(20):
        (batch,) = chunks(sampler.epoch_indices(epoch), 12)
        assert Counter(3 if index == 3 else index // 4 * 4 for index in batch)[3] == 4


def test_passes_differ_and_repeat_with_the_seed():
    first, again, other = (IdentitySampler(LABELS, 3, 2, seed=seed) for seed in (1, 1, 2))
    assert first.epoch_indices(0) == again.epoch_indices(0) != other.epoch_indices(0)
    assert first.epoch_indices(0) != first.epoch_indices(1)
    first.set_epoch(1)
    assert list(first) == again.epoch_indices(1)
    assert len(first) == again.epoch_length(1)


def test_every_person_comes_up_equally_often():
    sampler = IdentitySampler(labels_of([4] * 6), 2, 4)
    assert all(Counter(sampler.epoch_indices(epoch)) == Counter(range(24)) for epoch in range(5))
    firsts = Counter(sampler.epoch_indices(epoch)[0] // 4 for epoch in range(600))
    assert min(firsts.values()) > 60, "100 expected, more than four standard deviations"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (LABELS, 9, 4),
            "takes 9 identities with 4 images each, but the training data has only 8; lower the batch size",
        ),
        ((LABELS, 1, 4), "identities_per_batch is 1, but a batch needs at least 2"),
        ((LABELS, 4, 1), "images_per_identity is 1, but a batch needs at least 2"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        IdentitySampler(*arguments)


def all_items(sampler: TrainingSampler, num_epochs: int) -> list[SeededIndex]:
    found = []
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        found += list(sampler)
    return found


def test_random_order_gives_every_item_once_per_epoch():
    sampler = TrainingSampler(RandomOrder(23, seed=1), 3, 5, drop_last=False)
    epochs = [items[start : start + 23] for items in [all_items(sampler, 3)] for start in (0, 23, 46)]
    assert len(sampler) == 23
    assert (sampler.steps_per_epoch, sampler.num_steps, sampler.epoch_ends) == (5, 15, (5, 10, 15))
    assert all(sorted(item.index for item in epoch) == list(range(23)) for epoch in epochs)
    assert [item.index for item in epochs[0]] != [item.index for item in epochs[1]]
    assert len({item.seed for epoch in epochs for item in epoch}) == 69, "every item of every epoch has its own seed"


def test_an_incomplete_batch_is_left_out_or_kept():
    kept, dropped = (TrainingSampler(RandomOrder(23), 2, 5, drop_last=drop) for drop in (False, True))
    assert (len(kept), kept.num_steps) == (23, 10)
    assert (len(dropped), dropped.num_steps) == (20, 8)
    assert list(dropped) == list(kept)[:20]


@pytest.mark.parametrize(("num_epochs", "steps"), [(1.5, 8), (0.2, 1), (2.0, 10)])
def test_a_fraction_of_an_epoch(num_epochs, steps):
    assert TrainingSampler(RandomOrder(25), num_epochs, 5).num_steps == steps


@settings(deadline=None)
@given(sizes, st.integers(2, 3), st.integers(1, 5), st.integers(1, 2))
def test_a_run_is_the_passes_one_after_the_other(counts, images, num_epochs, accumulated):
    order = IdentitySampler(labels_of(counts), 2, images, seed=3)
    batch = 2 * images
    try:
        sampler = TrainingSampler(order, num_epochs, batch, batches_per_step=accumulated)
    except ConfigurationError:
        assert min(order.epoch_length(epoch) for epoch in range(num_epochs)) < batch * accumulated
        return
    passes = [order.epoch_indices(epoch) for epoch in range(num_epochs)]
    lengths = {len(found) for found in passes}
    unit = batch if len(lengths) == 1 else batch * accumulated
    expected = [index for found in passes for index in found[: len(found) // unit * unit]]
    assert [item.index for item in all_items(sampler, num_epochs)] == expected
    ends = [
        sum(-(-(len(found) // unit * unit) // (batch * accumulated)) for found in passes[: n + 1])
        for n in range(num_epochs)
    ]
    assert list(sampler.epoch_ends) == ends
    # The Trainer stops after num_steps; its equally long epochs hold them all (the last ones may not be needed).
    assert sampler.num_steps <= sampler.steps_per_epoch * num_epochs


def test_a_training_set_that_does_not_fill_a_step_is_refused():
    with pytest.raises(ConfigurationError, match="7 training items do not fill one step of 2 × 4; lower"):
        TrainingSampler(RandomOrder(7), 1, 4, batches_per_step=2)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_global_list_in_turn(world):
    """CLIP-ReID spec, section 9: one shared seed, P·K per process, consecutive batches to processes in turn."""
    order = IdentitySampler(labels_of([8] * 12), 2, 2, seed=1)
    own = 4
    sampler = TrainingSampler(order, 2, own * world)
    joint = [item.index for item in sampler]
    parts = [
        list(BatchSamplerShard(BatchSampler(sampler, own, drop_last=True), world, process)) for process in range(world)
    ]
    for step in range(sampler.steps_per_epoch):
        together = [item.index for part in parts for item in part[step]]
        assert together == joint[step * own * world : (step + 1) * own * world]
        for part in parts:
            people = [item.index // 8 for item in part[step]]
            assert Counter(people) == dict.fromkeys(people, 2)


def test_batches_can_be_skipped_on_resuming():
    sampler = TrainingSampler(RandomOrder(20, seed=2), 3, 4)
    loader = DataLoader(_Echo(), batch_size=4, sampler=sampler, collate_fn=list, drop_last=True)
    sampler.set_epoch(2)
    assert list(skip_first_batches(loader, 3)) == list(loader)[3:]


class _Echo(Dataset):
    """Gives back what it is asked for."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, key: SeededIndex) -> SeededIndex:
        return key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": float("inf")}, "num_epochs is inf, but must be above 0 and finite"),
        ({"num_epochs": float("nan")}, "num_epochs is nan, but must be above 0"),
        ({"num_epochs": 0}, "num_epochs is 0, but must be above 0"),
        ({"batches_per_step": 0}, "batches_per_step is 0, but must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1, but must be at least 1"),
    ],
)
def test_numbers_without_sense_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=f"TrainingSampler.{message}"):
        TrainingSampler(RandomOrder(7), **{"num_epochs": 1, "batch_size": 2, **options})
