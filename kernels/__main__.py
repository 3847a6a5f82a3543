"""Print which backends can be used here, and which one layers of well-known nets get: ``python -m sw_mm.kernels``."""

import torch

from ._dispatch import VARIABLE, backends, requested_backend
from .depthwise_conv2d.geometry import crop_to_map
from .depthwise_conv2d.op import choose_backend

# Depthwise layers at 224 x 224: channels, side of the map, height and width of the kernel.
LAYERS = {
    'ShiftWise-T, stage 1, horizontal strip': (60, 56, 3, 51),
    'ShiftWise-T, stage 1, vertical strip': (60, 56, 51, 3),
    'ShiftWise-T, stage 3, horizontal strip': (246, 14, 3, 48),
    'SLaK-T, stage 2, vertical strip': (249, 28, 49, 5),
    'SLaK-T, stage 2, small kernel': (249, 28, 5, 5),
    'UniRepLKNet-T, stage 1': (80, 56, 3, 3),
    'UniRepLKNet-T, stage 3': (320, 14, 13, 13),
    'RepLKNet-31B, stage 1': (128, 56, 31, 31),
    'RepLKNet-31B, stage 3': (512, 14, 27, 27),
    'RepLKNet-31B, stage 4': (1024, 7, 13, 13),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def main() -> None:
    print('backends')
    for name, reason in backends().items():
        print(f'  {name:<10} {reason or "usable"}')
    print(f'  requested  {requested_backend()} (set {VARIABLE}, or use sw_mm.kernels.use_backend, to change it)\n')
    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    columns = [(device, dtype) for device in devices for dtype in DTYPES]
    titles = [f'{device} {str(dtype).removeprefix("torch.")}' for device, dtype in columns]
    width = max(map(len, LAYERS))
    print(f'{"layer":<{width}}  ' + '  '.join(f'{title:<13}' for title in titles))
    for name, layer in LAYERS.items():
        picks = [_pick(*layer, device, dtype) for device, dtype in columns]
        print(f'{name:<{width}}  ' + '  '.join(f'{pick:<13}' for pick in picks))


def _pick(channels: int, side: int, height: int, width: int, device: str, dtype: torch.dtype) -> str:
    x = torch.empty(1, channels, side, side, device=device, dtype=dtype)
    weight = torch.empty(channels, 1, height, width, device=device, dtype=dtype)
    left, top = width // 2, height // 2
    weight, _ = crop_to_map(weight, (side, side), (1, 1), (left, width - 1 - left, top, height - 1 - top), (1, 1))
    try:
        return choose_backend(x, weight)
    except RuntimeError:
        return 'none'


if __name__ == '__main__':
    main()
