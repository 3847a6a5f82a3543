"""Segmentation of land cover: what ``demo.py`` asks of a task."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LIBRARY = 'mmseg'
CONFIG = Path('configs/demo/upernet_sw_landcover.py')
DATA = Path('data/landcover')  # where the config looks for it, from the current folder; the converter has its name
METRIC, PERCENT, SCORE = 'mIoU', 1, 'mIoU'
MUST_REACH = 10.0  # less means that something is broken
MEASURED_ON = '74 validation tiles, mean over the classes'
PICTURES = 8


def constant_answer(training) -> tuple[str, Callable]:
    """Answer the most frequent class of the training labels in every pixel."""
    import torch
    from mmengine.structures import PixelData

    classes = training.metainfo['classes']
    maps = (item['data_samples'].gt_sem_seg.data.numpy() for item in training)
    counts = sum(np.bincount(labels.ravel(), minlength=256)[: len(classes)] for labels in maps)
    majority = int(np.argmax(counts))

    def answer(sample):
        sample.pred_sem_seg = PixelData(data=torch.full_like(sample.gt_sem_seg.data, majority))
        return sample

    return f'"{classes[majority]}" everywhere, the majority class', answer


def picture(samples: list, metainfo: dict, per_row: int = 2, scale: int = 2) -> Image.Image:
    """Draw (image, truth, prediction) triples in rows, with titles above and a legend below.

    Args:
        samples: RGB image (H, W, 3) uint8 and data sample, all of one size.
        metainfo: The data set's, with `classes` and `palette`. Labels beyond the classes are drawn black.
        per_row: Triples side by side.
        scale: Pixels of the picture for each pixel of a sample.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(metainfo['palette'])] = metainfo['palette']
    height, width = (side * scale for side in samples[0][0].shape[:2])
    gap, line, legend_columns = 4, 22, 4
    rows = -(-len(samples) // per_row)
    legend_rows = -(-len(metainfo['classes']) // legend_columns)
    full_width = per_row * 3 * (width + gap) - gap
    bottom = line + rows * (height + gap)
    page = Image.new('RGB', (full_width, bottom + legend_rows * line + gap), 'white')
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(14)

    for column in range(per_row * 3):
        title = ('image', 'truth', 'prediction')[column % 3]
        draw.text((column * (width + gap) + 2, 2), title, 'black', font)
    for number, (image, sample) in enumerate(samples):
        row, first = divmod(number, per_row)
        maps = (getattr(sample, name).data.squeeze(0).cpu().numpy() for name in ('gt_sem_seg', 'pred_sem_seg'))
        for offset, tile in enumerate((image, *(palette[labels] for labels in maps))):
            position = ((first * 3 + offset) * (width + gap), line + row * (height + gap))
            page.paste(Image.fromarray(np.ascontiguousarray(tile)).resize((width, height), 0), position)
    for number, name in enumerate(metainfo['classes']):
        column, row = divmod(number, legend_rows)
        x, y = column * full_width // legend_columns, bottom + row * line + gap
        draw.rectangle((x, y, x + 16, y + 14), tuple(metainfo['palette'][number]), 'black')
        draw.text((x + 22, y - 2), name, 'black', font)
    return page
