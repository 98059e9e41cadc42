"""Gathering with one process changes nothing; what several do is tested in `training/test_multiple_processes.py`."""

from __future__ import annotations

import torch

from reid_zoo.distributed import (
    JointBatchMixin,
    gather_batch,
    num_processes,
    own_draws_on_every_process,
    process_index,
    same_draws_on_all_processes,
    sum_over_processes,
)


def test_one_process_is_process_0():
    assert (num_processes(), process_index()) == (1, 0)


def test_one_process_gets_its_very_own_tensors():
    features, count = torch.zeros(2, 3), torch.tensor(4)
    assert gather_batch(features, None)[0] is features
    assert gather_batch(features, None)[1] is None
    assert sum_over_processes(features, count)[1] is count
    mixin = JointBatchMixin()
    assert mixin.gather_batch(features)[0] is features
    assert mixin.sum_over_processes(count)[0] is count


def test_one_process_draws_as_if_there_was_no_context():
    torch.manual_seed(0)
    expected = torch.rand(3)
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    contexts = (same_draws_on_all_processes, own_draws_on_every_process, JointBatchMixin().same_draws)
    found = []
    for context in contexts:
        with context(cpu):
            found.append(torch.rand(()))
    assert torch.equal(torch.stack(found), expected)
