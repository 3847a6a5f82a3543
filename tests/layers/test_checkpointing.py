import copy

import pytest
import torch
from torch import nn

from sw_mm.layers import checkpoint


@pytest.mark.parametrize('momentum', [0.1, None])
def test_a_training_step_is_that_of_a_plain_call(momentum):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.GELU(), nn.Dropout(0.5))
    spared = copy.deepcopy(plain)
    x = torch.randn(2, 3, 6, 6)
    for call, net in ((lambda net, x: net(x), plain), (checkpoint, spared)):
        torch.manual_seed(3)
        for _ in range(2):
            call(net, x).square().sum().backward()
    torch.testing.assert_close(spared.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert spared[1].num_batches_tracked == 2
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert all(name in dict(spared.named_buffers()) for name in ('1.running_mean', '1.running_var'))


def test_a_compiled_training_step_is_that_of_a_plain_call():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU())
    spared = copy.deepcopy(plain)
    x = torch.randn(2, 3, 6, 6)
    plain(x).square().sum().backward()
    torch.compile(lambda x: checkpoint(spared, x), backend='aot_eager', fullgraph=True)(x).square().sum().backward()
    torch.testing.assert_close(spared.state_dict(), plain.state_dict())
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_no_activation_of_the_inside_is_kept():
    net = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, 4))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        checkpoint(net, torch.randn(8, 4, requires_grad=True))
    assert (8, 64) not in kept
