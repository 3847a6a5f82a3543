"""The parts of exact resuming that need no run; tests/sparse has the runs."""

import pickle
import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sw_mm.engine.resume import _EpochSeeded, random_state, set_random_state


class Numbers(Dataset):
    """Random numbers of all three generators."""

    dataset = 'inside'

    def __init__(self):
        self.pipeline = 'first'

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])

    def __getitems__(self, indices):
        raise AssertionError('this way, no seeds are set')


def draw():
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]


def test_all_generators_are_restored():
    np.random.randn()  # leaves a second normal number behind
    random.gauss(0, 1)
    state = pickle.loads(pickle.dumps(random_state()))
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


def epochs(persistent: bool, first: int = 0) -> list[torch.Tensor]:
    epoch = torch.tensor(first).share_memory_()
    loader = DataLoader(_EpochSeeded(Numbers(), 3, epoch), 2, num_workers=2, persistent_workers=persistent)
    drawn = []
    for number in range(first, 3):
        epoch.fill_(number)
        drawn.append(torch.cat(list(loader)))
    return drawn


def test_workers_draw_by_the_epoch():
    """The same, however long they have lived; mmengine gives workers that start anew the same numbers in each epoch."""
    living, new = epochs(persistent=True), epochs(persistent=False)
    assert all(torch.equal(a, b) for a, b in zip(living, new, strict=True))
    assert not torch.equal(living[0], living[1])
    assert torch.equal(epochs(persistent=True, first=1)[0], living[1])


def test_the_data_set_inside_shows_through():
    inside = Numbers()
    outside = _EpochSeeded(inside, 0, torch.tensor(0))
    outside.pipeline = 'second'
    assert inside.pipeline == 'second'
    assert outside.dataset == 'inside'
    assert len(pickle.loads(pickle.dumps(outside))) == 8
