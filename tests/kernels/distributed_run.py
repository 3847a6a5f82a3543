"""One of the processes of ``test_distributed.py``: train a net one step and write its gradients to a file."""

import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from sw_mm.kernels import depthwise_conv2d, shift_conv2d, shift_tables

VARIANTS = {
    'plain': {},
    'static_graph': dict(static_graph=True),
    'find_unused_parameters': dict(find_unused_parameters=True),
    'checkpoint': {},
    'checkpoint, static_graph': dict(static_graph=True),
}
BATCH = 4


class Net(nn.Module):
    """Both kinds of convolution, one of them twice over, and one that only some variants use."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.tables = shift_tables(3, 13, 3, 2)
        generator = torch.Generator().manual_seed(0)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) / 4)

        self.dense, self.bias = parameter(3, 1, 7, 15), parameter(3)
        self.filters = parameter(3 * self.tables.num_shifts, 1, 3, 3)
        self.dilated = parameter(3, 1, 3, 3)

    def block(self, x: torch.Tensor) -> torch.Tensor:
        x = depthwise_conv2d(x, self.dense, self.bias, padding=(7, 7, 3, 3)).tanh()
        horizontal, vertical, centred = shift_conv2d(x, self.filters, self.tables)
        return (horizontal + vertical * centred).tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = checkpoint(self.block, x, use_reentrant=False) if 'checkpoint' in self.variant else self.block(x)
        return x if self.variant == 'find_unused_parameters' else depthwise_conv2d(x, self.dilated, None, 2, 2, 2)


def step(variant: str, rank: int | None = None, world_size: int = 1) -> dict[str, torch.Tensor | None]:
    """Return the gradients of the mean over the batch, computed here or by all processes together."""
    images = torch.randn(BATCH, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    net = model = Net(variant)
    if rank is not None:
        images = images.chunk(world_size)[rank]
        model = DistributedDataParallel(net, **VARIANTS[variant])
    for _ in range(2):  # DDP rebuilds its buckets after the first
        model.zero_grad()
        model(images).square().sum(dim=(1, 2, 3)).mean().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def main(rank: int, world_size: int, folder: str) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size)
    torch.save({variant: step(variant, rank, world_size) for variant in VARIANTS}, f'{folder}/{rank}.pt')
    distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
