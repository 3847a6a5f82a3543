"""Classification of tiles of land cover: what ``demo.py`` asks of a task."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LIBRARY = 'mmpretrain'
CONFIG = Path('configs/demo/sw_landcover-tiles.py')
DATA = Path('data/landcover_tiles')  # where the config looks for it; the converter has its name
METRIC, PERCENT, SCORE = 'accuracy/top1', 1, 'top-1'
MUST_REACH = 40.0  # less means that something is broken
MEASURED_ON = '596 validation tiles of ten classes'
PICTURES = 24


def constant_answer(training) -> tuple[str, Callable]:
    """Answer the most frequent class of the training labels for every image."""
    import torch

    classes = training.metainfo['classes']
    majority = int(np.bincount(training.get_gt_labels(), minlength=len(classes)).argmax())
    scores = torch.nn.functional.one_hot(torch.tensor(majority), len(classes)).float()
    name = f'"{classes[majority].replace("_", " ")}" always, the majority class'
    return name, lambda sample: sample.set_pred_score(scores)


def picture(samples: list, metainfo: dict, per_row: int = 6, side: int = 192) -> Image.Image:
    """Draw images with their truth below, and the prediction where it is another.

    Args:
        samples: RGB image (H, W, 3) uint8 and data sample.
        metainfo: The data set's, with `classes`.
        per_row: Images side by side.
        side: Pixels of the picture for a side of an image.
    """
    gap, line = 6, 18
    font = ImageFont.load_default(13)
    names = [name.replace('_', ' ') for name in metainfo['classes']]
    rows = -(-len(samples) // per_row)
    page = Image.new('RGB', (per_row * (side + gap) - gap, rows * (side + 2 * line + gap)), 'white')
    draw = ImageDraw.Draw(page)
    for number, (image, sample) in enumerate(samples):
        row, column = divmod(number, per_row)
        x, y = column * (side + gap), row * (side + 2 * line + gap)
        page.paste(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), 0), (x, y))
        truth = int(sample.gt_label)
        prediction = int(sample.pred_score.argmax())
        draw.text((x + 2, y + side), names[truth], 'black', font)
        if prediction != truth:
            draw.text((x + 2, y + side + line), f'said: {names[prediction]}', 'red', font)
    return page
