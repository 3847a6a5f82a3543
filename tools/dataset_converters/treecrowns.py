"""Make a small, real detection data set in COCO's layout from one public PyPI package.

The images are two aerial photographs of the National Ecological Observatory Network (NEON) with every tree crown boxed
by hand, which the package deepforest carries. The detector trains on tiles of one scene and is validated on the whole
of the other. See ``docs/datasets/treecrowns.md`` for what the data is, its licence and its limits.

    python tools/dataset_converters/treecrowns.py                 # download with pip, convert into data/treecrowns
    python tools/dataset_converters/treecrowns.py --source DIR    # no network: DIR holds the wheel or its four files
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from packaged_data import PackagedDataset, Source
from PIL import Image


def _member(name: str, sha256: str) -> Source:
    return Source(package='deepforest', version='2.1.0', member=f'deepforest/data/{name}', sha256=sha256)


TRAIN = (
    _member(
        '2019_YELL_2_528000_4978000_image_crop2.png',
        'a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767',
    ),
    _member(
        '2019_YELL_2_528000_4978000_image_crop2.xml',
        'bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11',
    ),
)
VAL = (
    _member(
        '2019_YELL_2_541000_4977000_image_crop.png',
        '178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131',
    ),
    _member(
        '2019_YELL_2_541000_4977000_image_crop.xml',
        'cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631',
    ),
)

CLASSES = ('tree',)
TILE = 256  # pixels of 10 cm
STRIDE = TILE // 2  # tiles overlap by half: four times the views of the same trees
MIN_VISIBLE = 0.5  # share of a crown that a tile must show for the box to count

ATTRIBUTION = """\
Tree crowns, made by tools/dataset_converters/treecrowns.py of sw_mm. Not redistributed with it.

Airborne camera images of the National Ecological Observatory Network (NEON, operated by Battelle for the U.S. National
Science Foundation), site YELL (Yellowstone), 2019, and the boxes drawn on them by the authors of DeepForest
(B. G. Weinstein, S. Marconi, M. Aubry-Kientz, G. Vincent, H. Senyondo, E. P. White, 2020). Taken from the PyPI package
deepforest 2.1.0 (MIT), folder deepforest/data.
"""


def read_boxes(xml: bytes) -> np.ndarray:
    """Read the boxes of a Pascal VOC annotation.

    Returns:
        (N, 4) float64: left, top, right, bottom in pixels, as the file has them.

    Raises:
        ValueError: If an object is no tree or a box is empty.
    """
    boxes = []
    for item in ElementTree.fromstring(xml).iter('object'):
        if (name := item.findtext('name')) != 'Tree':
            raise ValueError(f'the annotation holds the unknown class {name!r}; known: Tree')
        boxes.append([float(item.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax')])
    boxes = np.array(boxes).reshape(-1, 4)
    if (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ValueError('the annotation holds an empty box')
    return boxes


def crop_boxes(boxes: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Return the boxes of which a window shows enough, clipped to it and in its coordinates."""
    clipped = np.clip(boxes - [left, top] * 2, 0, [width, height] * 2)
    size, full = (np.maximum(each[:, 2:] - each[:, :2], 0).prod(axis=1) for each in (clipped, boxes))
    return clipped[size >= MIN_VISIBLE * full]


def tile_corners(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Give (left, top) of the tiles that cover a scene; the last of each row and column ends at its edge."""
    if min(width, height) < TILE:
        raise ValueError(f'the scene measures {width} x {height} pixels, less than a tile of {TILE}')
    for top in dict.fromkeys([*range(0, height - TILE, STRIDE), height - TILE]):
        for left in dict.fromkeys([*range(0, width - TILE, STRIDE), width - TILE]):
            yield left, top


def coco(images: Sequence[tuple[str, int, int, np.ndarray]]) -> dict:
    """Return COCO's annotation of images, each given as (file name, width, height, boxes)."""
    annotations = [
        dict(image_id=number, bbox=[left, top, right - left, bottom - top], area=(right - left) * (bottom - top))
        for number, (*_, boxes) in enumerate(images, start=1)
        for left, top, right, bottom in boxes.tolist()
    ]
    return dict(
        images=[
            dict(id=number, file_name=name, width=width, height=height)
            for number, (name, width, height, _) in enumerate(images, start=1)
        ],
        annotations=[
            dict(id=number, category_id=1, iscrowd=0, **annotation)
            for number, annotation in enumerate(annotations, start=1)
        ],
        categories=[dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)],
    )


def write(data: Sequence[bytes], folder: Path) -> dict[str, int]:
    """Write the data set into an empty folder from the two scenes and their boxes; returns counts."""
    train, train_boxes, val, val_boxes = data
    for name in ('train', 'val', 'annotations'):
        (folder / name).mkdir()
    scene, boxes = Image.open(io.BytesIO(train)).convert('RGB'), read_boxes(train_boxes)
    tiles = []
    for left, top in tile_corners(*scene.size):
        inside = crop_boxes(boxes, left, top, TILE, TILE)
        if len(inside):
            name = f'x{left:04}_y{top:04}.jpg'
            scene.crop((left, top, left + TILE, top + TILE)).save(folder / 'train' / name, quality=95, subsampling=0)
            tiles.append((name, TILE, TILE, inside))
    # Not cut: no crown is halved, and none is found twice.
    scene, boxes = Image.open(io.BytesIO(val)).convert('RGB'), read_boxes(val_boxes)
    scene.save(folder / 'val' / 'scene.png')
    for split, images in (('train', tiles), ('val', [('scene.png', *scene.size, boxes)])):
        (folder / 'annotations' / f'{split}.json').write_text(json.dumps(coco(images)) + '\n')
    (folder / 'ATTRIBUTION.txt').write_text(ATTRIBUTION)
    return {'training tiles': len(tiles), 'trees in the validation scene': len(boxes)}


DATASET = PackagedDataset('treecrowns', (*TRAIN, *VAL), write, (Path(__file__),), __doc__.partition('\n')[0])

if __name__ == '__main__':
    DATASET.main()
