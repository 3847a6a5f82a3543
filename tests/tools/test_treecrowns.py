"""The tree-crown converter, on small synthetic scenes."""

import io
import json

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 500, 300
# Apart from one another, one across a corner of tiles, one at the edge of the scene.
BOXES = [(10, 20, 50, 70), (100, 120, 140, 136), (240, 30, 272, 60), (430, 260, 500, 300)]


@pytest.fixture(scope='module')
def treecrowns(load_tool):
    return load_tool('dataset_converters.treecrowns')


def annotation(boxes, name='Tree'):
    sides = ('xmin', 'ymin', 'xmax', 'ymax')
    objects = (
        f'<object><name>{name}</name><bndbox>{"".join(f"<{s}>{v}</{s}>" for s, v in zip(sides, box, strict=True))}'
        '</bndbox></object>'
        for box in boxes
    )
    return f'<annotation>{"".join(objects)}</annotation>'.encode()


@pytest.fixture(scope='module')
def scene():
    """Colours say where a pixel is."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([columns // 2, rows // 2, np.zeros_like(rows)], axis=-1).astype(np.uint8)


@pytest.fixture(scope='module')
def dataset(treecrowns, scene, tmp_path_factory):
    output = tmp_path_factory.mktemp('data') / 'treecrowns'
    file = io.BytesIO()
    Image.fromarray(scene).save(file, 'PNG')
    data = [file.getvalue(), annotation(BOXES), file.getvalue(), annotation(BOXES[:2])]
    treecrowns.DATASET.convert(data, output)
    return output


def read(dataset, split):
    content = json.loads((dataset / 'annotations' / f'{split}.json').read_text())
    boxes = {image['file_name']: [] for image in content['images']}
    names = {image['id']: image['file_name'] for image in content['images']}
    for item in content['annotations']:
        boxes[names[item['image_id']]].append(tuple(item['bbox']))
        assert item['area'] == item['bbox'][2] * item['bbox'][3]
    assert len({item['id'] for item in content['annotations']}) == len(content['annotations'])
    assert content['categories'] == [{'id': 1, 'name': 'tree'}]
    return content['images'], boxes


def test_training_tiles_hold_what_lies_under_them(dataset, scene, treecrowns):
    images, boxes = read(dataset, 'train')
    assert {path.name for path in (dataset / 'train').iterdir()} == set(boxes)
    shown = set()
    for image in images:
        left, top = (int(part[1:]) for part in image['file_name'].removesuffix('.jpg').split('_'))
        pixels = np.asarray(Image.open(dataset / 'train' / image['file_name'])).astype(int)
        assert pixels.shape == (image['height'], image['width'], 3) == (256, 256, 3)
        assert np.abs(pixels - scene[top : top + 256, left : left + 256]).max() <= 8  # JPEG
        assert boxes[image['file_name']], 'a tile without trees'
        for x, y, width, height in boxes[image['file_name']]:
            assert 0 <= x < x + width <= 256
            assert 0 <= y < y + height <= 256
            clipped = (x + left, y + top, x + left + width, y + top + height)
            (whole,) = [
                box
                for box in BOXES
                if np.array_equal(np.clip(box, [left, top] * 2, [left + 256, top + 256] * 2), clipped)
            ]
            assert 2 * width * height >= (whole[2] - whole[0]) * (whole[3] - whole[1])
            shown.add(whole)
    assert shown == set(BOXES)


def test_tiles_cover_the_scene(treecrowns):
    covered = np.zeros((HEIGHT, WIDTH), bool)
    corners = list(treecrowns.tile_corners(WIDTH, HEIGHT))
    for left, top in corners:
        assert left + 256 <= WIDTH
        assert top + 256 <= HEIGHT
        covered[top : top + 256, left : left + 256] = True
    assert covered.all()
    assert len(corners) == len(set(corners))
    assert list(treecrowns.tile_corners(256, 256)) == [(0, 0)]
    with pytest.raises(ValueError, match='255 x 256 pixels, less than a tile of 256'):
        list(treecrowns.tile_corners(255, 256))


def test_half_a_crown_must_be_visible(treecrowns):
    boxes = np.array([[-10.0, 0, 10, 10], [-11, 0, 9, 10], [250, 250, 270, 262], [300, 300, 310, 310]])
    np.testing.assert_array_equal(treecrowns.crop_boxes(boxes, 0, 0, 256, 256), [[0, 0, 10, 10]])
    np.testing.assert_array_equal(treecrowns.crop_boxes(boxes, 240, 240, 256, 256)[0], [10, 10, 30, 22])


def test_the_validation_scene_is_whole(dataset, scene):
    images, boxes = read(dataset, 'val')
    assert images == [dict(id=1, file_name='scene.png', width=WIDTH, height=HEIGHT)]
    assert boxes == {'scene.png': [(10, 20, 40, 50), (100, 120, 40, 16)]}
    np.testing.assert_array_equal(np.asarray(Image.open(dataset / 'val' / 'scene.png')), scene)


def test_unknown_classes_and_empty_boxes_are_refused(treecrowns):
    with pytest.raises(ValueError, match="unknown class 'Bird'"):
        treecrowns.read_boxes(annotation(BOXES, 'Bird'))
    with pytest.raises(ValueError, match='empty box'):
        treecrowns.read_boxes(annotation([(1, 2, 1, 5)]))
    assert treecrowns.read_boxes(annotation([])).shape == (0, 4)


def test_credits_lie_beside_the_data(dataset, treecrowns):
    text = (dataset / 'ATTRIBUTION.txt').read_text()
    assert all(f'{source.package} {source.version}' in text for source in treecrowns.DATASET.sources)


def test_mmdetection_reads_it(dataset):
    from mmengine.registry import DATASETS

    import sw_mm.registry  # noqa: F401

    settings = dict(type='sw_mm.TreeCrownDataset', data_root=str(dataset), data_prefix=dict(img='train/'))
    trees = DATASETS.build(dict(settings, ann_file='annotations/train.json'))
    assert trees.metainfo['classes'] == ('tree',)
    assert len(trees) == len(list((dataset / 'train').iterdir()))
    assert {instance['bbox_label'] for info in trees for instance in info['instances']} == {0}
    with pytest.raises(FileNotFoundError, match=r'tools/dataset_converters/treecrowns\.py'):
        DATASETS.build(dict(settings, ann_file='annotations/test.json'))
