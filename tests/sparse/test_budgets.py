"""Budgets add up to the unit, keep every layer alive, and rank layers as their papers say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sw_mm.sparse.budgets import erk_budget, snip_budget, uniform_budget

SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=8)
DENSITIES = st.floats(0.05, 1.0)


def check(counts, sizes, density, floor):
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    least = [max(int(floor * size), 1 if floor > 0 else 0) for size in sizes]
    assert all(count >= low for count, low in zip(counts, least, strict=True))
    assert sum(counts) == max(round(density * sum(sizes)), sum(least))


@given(SIZES, DENSITIES, st.floats(0, 1))
def test_uniform_counts(sizes, density, part):
    counts = uniform_budget(sizes, density, floor=part * density)
    check(counts, sizes, density, part * density)
    if part == 0:
        assert all(abs(count - density * size) <= 1 for count, size in zip(counts, sizes, strict=True))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8), DENSITIES, st.floats(0, 1))
def test_erk_counts(shapes, density, part):
    sizes = [a * b for a, b in shapes]
    check(erk_budget(shapes, sizes, density, floor=part * density), sizes, density, part * density)


@given(SIZES, DENSITIES, st.floats(0, 1), st.integers(1, 3), st.integers(0, 2**31))
def test_snip_counts(sizes, density, part, paths, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(paths, size, generator=generator) * 10**-layer for layer, size in enumerate(sizes)]
    check(snip_budget(scores, density, floor=part * density), sizes, density, part * density)


def test_erk_follows_sum_over_product():
    # Both tensors have 3600 weights: (60, 60) is ten times as spread out as (6, 6, 10, 10).
    wide, deep = erk_budget([(60, 60), (6, 6, 10, 10)], [3600, 3600], density=0.2)
    assert wide / deep == pytest.approx(120 / 32, rel=0.01)
    assert wide + deep == 1440


def test_erk_makes_layers_dense_that_would_exceed_it():
    assert erk_budget([(2, 2), (100, 100)], [4, 10000], density=0.5)[0] == 4


def test_snip_ranks_the_units_of_the_whole_net():
    scores = [torch.tensor([[9.0, 8.0, 1.0, 1.0]]), torch.tensor([[7.0, 2.0, 2.0, 2.0]])]
    assert snip_budget(scores, density=0.375) == [2, 1]


def test_snip_ranks_parallel_weights_one_by_one():
    # By the mean of the paths, the second layer's units would win; ranked one by one, each layer has 2 of the best 4.
    scores = [torch.tensor([[9.0, 9.0], [0.0, 0.0]]), torch.tensor([[8.0, 8.0], [7.0, 7.0]])]
    assert snip_budget(scores, density=0.5) == [1, 1]


def test_a_floor_keeps_a_layer_that_snip_leaves_out():
    """The official code gives such a layer density 0, from which nothing can grow."""
    scores = [torch.full((1, 100), 1.0), torch.full((1, 100), 1e-9)]
    assert snip_budget(scores, density=0.5) == [100, 0]
    assert snip_budget(scores, density=0.5, floor=0.05) == [95, 5]


@pytest.mark.parametrize(
    ('density', 'floor', 'match'),
    [(0.0, 0.0, 'density'), (1.1, 0.0, 'density'), (0.5, 0.6, 'floor'), (0.5, -0.1, 'floor')],
)
def test_out_of_range(density, floor, match):
    with pytest.raises(ValueError, match=match):
        uniform_budget([10], density, floor)


def test_scores_that_are_not_finite():
    with pytest.raises(ValueError, match='finite'):
        snip_budget([torch.tensor([[1.0, float('nan')]])], 0.5)
