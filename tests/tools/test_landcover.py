"""The land-cover converters, on small synthetic globes."""

import io
import json

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 2160, 1080  # two periods of the split


@pytest.fixture(scope='module')
def landcover(load_tool):
    return load_tool('dataset_converters.landcover')


@pytest.fixture(scope='module')
def globe():
    """Imagery whose colours say where a pixel is, and a finer label map: one ocean, 16 bands of land, a hole."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    imagery = np.stack([columns // 10, rows // 5, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    labels = 1 + np.arange(WIDTH * 4 // 3) // 40 % 16 * np.ones((HEIGHT * 4 // 3, 1), int)
    labels[:, :500] = 0
    labels[600:640, 1000:1100] = 255
    return Image.fromarray(imagery), Image.fromarray(labels.astype(np.uint8))


@pytest.fixture(scope='module')
def rasters(globe):
    """The globe as the bytes of two image files."""
    files = [io.BytesIO(), io.BytesIO()]
    for image, file in zip(globe, files, strict=True):
        image.save(file, 'PNG')
    return [file.getvalue() for file in files]


@pytest.fixture(scope='module')
def dataset(landcover, rasters, tmp_path_factory):
    output = tmp_path_factory.mktemp('data') / 'landcover'
    landcover.DATASET.convert(rasters, output)
    return output


def corner(path):
    return tuple(int(part[1:]) for part in path.stem.split('_'))


# ------------------------------------------------------------------------------------------------ converting


def test_nearest_takes_the_cell_the_centre_lies_in(landcover):
    fine = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(landcover.resample_nearest(fine, 3, 3), [[0, 2, 3], [8, 10, 11], [12, 14, 15]])
    np.testing.assert_array_equal(landcover.resample_nearest(fine, 2, 2), [[5, 7], [13, 15]])
    np.testing.assert_array_equal(landcover.resample_nearest(fine, 4, 4), fine)


def test_annotations_follow_ade20k(landcover):
    labels = np.array([[0, 16, 255]], np.uint8)
    np.testing.assert_array_equal(landcover.to_annotation(labels, 17), [[1, 17, 0]])
    with pytest.raises(ValueError, match=r'unknown classes \[17\]'):
        landcover.to_annotation(labels + np.uint8(1) * (labels == 16), 17)


def test_tiles_hold_what_lies_under_them(dataset, globe, landcover):
    imagery = np.asarray(globe[0]).astype(int)
    annotation = landcover.to_annotation(landcover.resample_nearest(np.asarray(globe[1]), HEIGHT, WIDTH), 17)
    images = sorted(dataset.glob('images/*/*.jpg'))
    assert images
    for path in images:
        x, y = corner(path)
        window = np.s_[y : y + landcover.TILE, x : x + landcover.TILE]
        truth = np.asarray(Image.open(dataset / 'annotations' / path.parent.name / f'{path.stem}.png'))
        np.testing.assert_array_equal(truth, annotation[window])
        assert np.abs(np.asarray(Image.open(path)).astype(int) - imagery[window]).max() <= 8  # JPEG
    assert len(images) == len(list(dataset.glob('annotations/*/*.png')))


def test_tiles_have_land(dataset, landcover):
    shares = [np.mean(np.asarray(Image.open(path)) > 1) for path in dataset.glob('annotations/*/*.png')]
    assert min(shares) >= landcover.MIN_LAND
    assert min(corner(path)[0] for path in dataset.glob('images/training/*')) > 0  # the ocean is left out


@pytest.mark.parametrize(('width', 'height'), [(5400, 2700), (WIDTH, HEIGHT)])
def test_splits_are_apart_in_longitude(landcover, width, height):
    covered = {'training': np.zeros(width, bool), 'validation': np.zeros(width, bool)}
    corners = list(landcover.tile_corners(width, height))
    for split, x, y in corners:
        assert 0 <= x <= width - landcover.TILE
        assert 0 <= y <= height - landcover.TILE
        covered[split][x : x + landcover.TILE] = True
    for shift in range(-landcover.MARGIN, landcover.MARGIN + 1):  # the globe is round: roll, not slice
        assert not np.any(covered['training'] & np.roll(covered['validation'], shift))
    assert len(corners) == len(set(corners))
    validation = [(x, y) for split, x, y in corners if split == 'validation']
    assert all(
        abs(x - u) >= landcover.TILE or abs(y - v) >= landcover.TILE
        for i, (x, y) in enumerate(validation)
        for u, v in validation[:i]
    ), 'validation tiles overlap'


def test_converting_is_deterministic(dataset, rasters, landcover, tree, tmp_path):
    landcover.DATASET.convert(rasters, tmp_path / 'again')
    assert tree(tmp_path / 'again') == tree(dataset)


def test_classes_and_credits_lie_beside_the_data(dataset, landcover):
    classes = json.loads((dataset / 'classes.json').read_text())
    assert len(classes['classes']) == len(classes['palette']) == 17
    assert len(set(classes['classes'])) == len(set(map(tuple, classes['palette']))) == 17
    credits = (dataset / 'ATTRIBUTION.txt').read_text()
    for source in landcover.DATASET.sources:
        assert f'{source.package} {source.version}' in credits


# ------------------------------------------------------------------------------------------- classification


@pytest.fixture(scope='module')
def tiles(load_tool):
    return load_tool('dataset_converters.landcover_tiles')


@pytest.fixture(scope='module')
def folders(tiles, rasters, tmp_path_factory):
    output = tmp_path_factory.mktemp('data') / 'landcover_tiles'
    tiles.DATASET.convert(rasters, output)
    return output


def test_tiles_lie_in_the_folder_of_their_majority(folders, globe, tiles, landcover):
    names = json.loads(landcover.METAINFO.read_text())['metainfo']['classes']
    labels = landcover.resample_nearest(np.asarray(globe[1]), HEIGHT, WIDTH)
    imagery = np.asarray(globe[0])
    images = sorted(folders.glob('*/*/*.png'))
    assert {path.parts[-3] for path in images} == {'train', 'val'}
    for path in images:
        x, y = corner(path)
        window = np.s_[y : y + tiles.TILE, x : x + tiles.TILE]
        share = np.mean(labels[window] == names.index(path.parent.name.replace('_', ' ')))
        assert share >= tiles.MIN_SHARE
        np.testing.assert_array_equal(np.asarray(Image.open(path)), imagery[window])


def test_both_splits_have_the_same_classes_and_no_common_land(folders, tiles, landcover):
    classes = [sorted(path.name for path in (folders / split).iterdir()) for split in ('train', 'val')]
    assert classes[0] == classes[1]
    assert classes[0]
    covered = np.zeros((2, WIDTH), bool)
    for number, split in enumerate(('train', 'val')):
        for path in (folders / split).rglob('*.png'):
            covered[number, corner(path)[0] :][: tiles.TILE] = True
    for shift in range(-landcover.MARGIN, landcover.MARGIN + 1):
        assert not (covered[0] & np.roll(covered[1], shift)).any()


def test_rare_classes_are_left_out(tiles, rasters, tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, 'MIN_TILES', 10**6)
    assert tiles.write(rasters, tmp_path) == {'train tiles': 0, 'val tiles': 0}


def test_what_is_too_much_is_thinned_out_evenly(tiles, rasters, tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, 'LIMITS', {'train': 5, 'val': 3})
    tiles.write(rasters, tmp_path)
    for split, limit in tiles.LIMITS.items():
        assert {len(list(folder.iterdir())) for folder in (tmp_path / split).iterdir()} == {limit}
    assert tiles.evenly(range(10), 4) == [0, 3, 6, 9]
    assert tiles.evenly(range(3), 4) == [0, 1, 2]
