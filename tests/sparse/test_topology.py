"""The schedule and one change of masks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sw_mm.sparse.masks import MaskedWeight, SparseLayer
from sw_mm.sparse.topology import cosine_prune_rate, draw_masks, exchange_units


def make_layer(granularity: str, units: int, weights: int = 1, seed: int = 0) -> SparseLayer:
    generator = torch.Generator().manual_seed(seed)
    shape = (units, 1, 3, 3) if granularity == 'filter' else (1, 1, 1, units)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(weights)]
    return SparseLayer('layer', [MaskedWeight(f'weight{i}', p, granularity) for i, p in enumerate(parameters)])


@given(st.integers(1, 10**6), st.floats(0.001, 1.0), st.data())
def test_rate_falls_along_a_cosine(steps, start, data):
    early, late = sorted(data.draw(st.tuples(st.integers(0, steps), st.integers(0, steps))))
    rates = [cosine_prune_rate(step, steps, start) for step in (0, early, late, steps, 2 * steps)]
    assert rates[0] == pytest.approx(start)
    assert rates == sorted(rates, reverse=True)
    assert rates[3] == rates[4] == pytest.approx(min(start, 0.005))


def test_rate_as_published():
    # SW: 936 changes in 93 600 updates; SLaK-T starts at 0.5.
    assert cosine_prune_rate(46800, 93600, 0.3) == pytest.approx((0.3 + 0.005) / 2)
    assert cosine_prune_rate(31200, 93600, 0.5) == pytest.approx(0.005 + 0.495 * 0.75)


@given(
    st.sampled_from(['filter', 'weight']),
    st.integers(1, 60),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_counts_never_drift(granularity, units, density, rate, weights, aligned, gradient, seed):
    """The official code grows as many as it pruned on average only, so that density walks at random."""
    layer, generator = make_layer(granularity, units, weights, seed), torch.Generator().manual_seed(seed)
    count = round(density * units)
    draw_masks(layer, count, generator)
    for _ in range(4):
        growth = (lambda weight: weight.per_unit(weight.parameter.detach() ** 2)) if gradient else None
        before = [weight.mask.clone() for weight in layer.weights]
        exchange_units(layer, rate, generator, growth, aligned)
        for weight, old in zip(layer.weights, before, strict=True):
            assert int(weight.mask.sum()) == count
            if not aligned:
                swapped = min(math.ceil(rate * count), units - count)
                assert int((old & ~weight.mask).sum()) == int((~old & weight.mask).sum()) == swapped
        if aligned:
            assert all(torch.equal(weight.mask, layer.weights[0].mask) for weight in layer.weights)


def test_the_least_are_pruned_and_none_of_them_grows_at_once():
    """In the official code about half of the pruned weights come back in the same update, with their old values."""
    layer = make_layer('weight', 100)
    generator = torch.Generator().manual_seed(0)
    draw_masks(layer, 60, generator)
    (weight,) = layer.weights
    old, magnitude = weight.mask.clone(), weight.parameter.detach().abs().flatten()
    exchange_units(layer, 0.5, generator)
    pruned = old & ~weight.mask
    assert int(pruned.sum()) == 30
    assert magnitude[pruned].max() < magnitude[old & weight.mask].min()
    assert int((weight.mask & ~old).sum()) == 30


def test_gradient_growth_takes_the_best():
    layer = make_layer('filter', 10)
    (weight,) = layer.weights
    weight.mask = torch.arange(10) < 6
    gain = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 4.0, 2.0, 3.0])
    exchange_units(layer, 0.3, torch.Generator(), lambda _: gain)
    assert weight.mask[6:].tolist() == [False, True, False, True]


def test_an_aligned_change_judges_by_all_paths_and_starts_from_the_first():
    layer = make_layer('filter', 4, weights=2)
    first, second = layer.weights
    for weight, values in ((first, [1.0, 2.0, 3.0, 0.0]), (second, [9.0, 0.0, 3.0, 5.0])):
        weight.parameter.data = torch.tensor(values)[:, None, None, None].expand(4, 1, 3, 3).clone()
    first.mask, second.mask = torch.tensor([True, True, True, False]), torch.tensor([True, False, True, True])
    exchange_units(layer, 0.1, torch.Generator(), aligned=True)  # one of three goes: unit 1 has the least sum
    assert first.mask.tolist() == second.mask.tolist() == [True, False, True, True]


def test_draws_reach_the_device_of_the_weights_by_a_generator_of_the_cpu():
    layer = make_layer('filter', 20)
    state = torch.get_rng_state()
    draw_masks(layer, 7, torch.Generator().manual_seed(3))
    assert int(layer.weights[0].mask.sum()) == 7
    assert torch.equal(torch.get_rng_state(), state), 'the global generator was used'
