"""Repair what NumPy 2 breaks in mmcv: turning a hue backwards, as half of all draws of mmpretrain's ColorJitter do.

mmcv adds ``np.uint8(hue_factor * 255)`` to the hue and counts on negative numbers wrapping around, which NumPy 2
refuses.
"""

import functools
import sys
from types import ModuleType

from sw_mm.compat._after_import import after_import


def install() -> None:
    """Have ``mmcv.adjust_hue`` accept negative factors."""
    after_import('mmcv.image.photometric', _patch_adjust_hue)


def _patch_adjust_hue(photometric: ModuleType) -> None:
    import cv2
    import numpy as np
    from PIL import Image

    original = photometric.adjust_hue

    @functools.wraps(original)
    def adjust_hue(img, hue_factor, backend=None):
        backend = backend or photometric.imread_backend
        # The original keeps what works, and all the checks.
        if not -0.5 <= hue_factor < 0 or backend not in ('cv2', 'pillow') or getattr(img, 'ndim', 0) != 3:
            return original(img, hue_factor, backend)
        shift = np.uint8(int(hue_factor * 255) % 256)  # uint8 sums wrap around, as hues do
        if backend == 'cv2':
            hsv = cv2.cvtColor(img.astype(np.uint8), cv2.COLOR_BGR2HSV_FULL)
            hsv[..., 0] += shift
            return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL).astype(img.dtype)
        if img.dtype != np.uint8:
            raise TypeError(f'img: the pillow backend takes uint8 images, not {img.dtype}')
        hue, *others = Image.fromarray(np.ascontiguousarray(img[..., ::-1])).convert('HSV').split()
        turned = Image.merge('HSV', (Image.fromarray(np.asarray(hue) + shift), *others))
        return np.array(turned.convert('RGB'))[..., ::-1]

    for name in ('mmcv.image.photometric', 'mmcv.image', 'mmcv'):
        if hasattr(module := sys.modules.get(name), 'adjust_hue'):
            module.adjust_hue = adjust_hue
