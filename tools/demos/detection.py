"""Detection of tree crowns: what ``demo.py`` asks of a task."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LIBRARY = 'mmdet'
CONFIG = Path('configs/demo/faster_rcnn_sw_treecrowns.py')
DATA = Path('data/treecrowns')  # where the config looks for it, from the current folder; the converter has its name
METRIC, PERCENT, SCORE = 'coco/bbox_mAP_50', 100, 'AP50'
MUST_REACH = 5.0  # less means that something is broken
MEASURED_ON = 'One validation scene with 279 trees'
PICTURES = 1
SHOWN = 0.3  # score from which on a box is drawn


def constant_answer(training) -> tuple[str, Callable]:
    """Answer a grid of boxes side by side, each as large as the mean box of the training labels, all with score 1."""
    import torch
    from mmengine.structures import InstanceData

    items = (training.get_data_info(index)['instances'] for index in range(len(training)))
    boxes = np.array([instance['bbox'] for instances in items for instance in instances])
    width, height = (boxes[:, 2:] - boxes[:, :2]).mean(axis=0).tolist()

    def answer(sample):
        rows, columns = (int(side // step) for side, step in zip(sample.ori_shape, (height, width), strict=True))
        top, left = (grid.ravel() for grid in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij'))
        boxes = torch.stack([left * width, top * height, (left + 1) * width, (top + 1) * height], dim=1)
        sample.pred_instances = InstanceData(
            bboxes=boxes, scores=torch.ones(len(boxes)), labels=torch.zeros(len(boxes), dtype=torch.long)
        )
        return sample

    return f'a grid of mean boxes, {width:.0f} x {height:.0f} pixels', answer


def picture(samples: list, metainfo: dict, scale: float = 0.6) -> Image.Image:
    """Draw truth and prediction side by side, a row for each image.

    Args:
        samples: RGB image (H, W, 3) uint8 and data sample.
        metainfo: The data set's, with `palette`; the first colour is taken.
        scale: Pixels of the picture for each pixel of an image.
    """
    gap, line = 4, 22
    rows = []
    for image, sample in samples:
        size = tuple(round(side * scale) for side in image.shape[1::-1])
        found = sample.pred_instances[sample.pred_instances.scores >= SHOWN]
        row = []
        for boxes in (sample.gt_instances.bboxes, found.bboxes):
            page = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
            draw = ImageDraw.Draw(page)
            # Truths of a pipeline that packs them are of mmdet's own box type.
            for box in getattr(boxes, 'tensor', boxes).cpu().numpy() * scale:
                draw.rectangle(box.round().tolist(), outline=tuple(metainfo['palette'][0]), width=2)
            row.append(page)
        rows.append(row)
    width = max(row[0].width for row in rows) * 2 + gap
    page = Image.new('RGB', (width, line + sum(row[0].height + gap for row in rows)), 'white')
    draw = ImageDraw.Draw(page)
    y = line
    for row in rows:
        for column, each in enumerate(row):
            page.paste(each, (column * (width + gap) // 2, y))
        y += row[0].height + gap
    for column, title in enumerate(('truth', f'prediction (score at least {SHOWN})')):
        draw.text((column * (width + gap) // 2 + 2, 2), title, 'black', ImageFont.load_default(14))
    return page
