from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


class Classifier(nn.Module):
    """The official net: a backbone and a linear layer for 1000 classes."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.norm.normalized_shape[0], 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x)[0])


@pytest.fixture
def classifier() -> type[Classifier]:
    """Return the class that puts a head behind a backbone, as papers count nets."""
    return Classifier


@pytest.fixture
def convnext_shapes() -> Callable[..., dict[str, tuple[int, ...]]]:
    """Return a function that lists names and shapes of the state dict of a net with ConvNeXt's design, in order."""

    def function(
        depths: Sequence[int], channels: Sequence[int], mixer: Callable[[int], dict[str, tuple[int, ...]]]
    ) -> dict[str, tuple[int, ...]]:
        shapes = {}

        def layer(name: str, *weight: int) -> None:
            shapes.update({f'{name}.weight': weight, f'{name}.bias': weight[:1]})

        layer('downsample_layers.0.0', channels[0], 3, 4, 4)
        layer('downsample_layers.0.1', channels[0])
        for i in range(1, 4):
            layer(f'downsample_layers.{i}.0', channels[i - 1])
            layer(f'downsample_layers.{i}.1', channels[i], channels[i - 1], 2, 2)
        for stage, (depth, c) in enumerate(zip(depths, channels, strict=True)):
            for at in (f'stages.{stage}.{b}' for b in range(depth)):
                shapes[f'{at}.gamma'] = (c,)
                for name, kernel in mixer(stage).items():
                    if name.endswith('.conv'):  # inside a ConvNorm
                        shapes[f'{at}.{name}.weight'] = (c, 1, *kernel)
                    elif name.endswith('.bn'):
                        shapes.update({f'{at}.{name}.{key}': () if key[:3] == 'num' else (c,) for key in NORM})
                    else:
                        layer(f'{at}.{name}', c, 1, *kernel)
                layer(f'{at}.norm', c)
                layer(f'{at}.pwconv1', 4 * c, c)
                layer(f'{at}.pwconv2', c, 4 * c)
        layer('norm', channels[-1])
        return shapes

    return function


@pytest.fixture
def perturb() -> Callable[[nn.Module], nn.Module]:
    """Return a function that moves every parameter and statistic of a net away from its start."""

    def function(net: nn.Module) -> nn.Module:
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.2 - 0.1)
        return net

    return function
