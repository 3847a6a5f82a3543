"""The parts of the demo that can be checked by hand; `make demo` runs the whole."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

METAINFO = {'classes': ['sea', 'wood', 'sand'], 'palette': [[0, 0, 255], [0, 255, 0], [255, 255, 0]]}


@pytest.fixture(scope='module')
def demo(load_tool):
    return load_tool('demo')


def test_majority_class_by_hand(demo):
    training = [np.array([[1, 1, 1, 0]]), np.array([[2, 1, 255, 255]])]
    validation = [np.array([[0, 0, 0, 1]]), np.array([[1, 1, 255, 255]])]
    # Answer "wood": 3 of 6 labelled pixels are right. IoU is 0 for sea, 3/6 for wood; sand occurs nowhere and is left
    # out of the mean, as mmseg does it.
    majority, miou = demo.majority_miou(training, validation, METAINFO)
    assert majority == 1
    assert miou == pytest.approx(100 * (0 + 3 / 6) / 2, abs=0.01)


def test_majority_comes_from_training(demo):
    majority, miou = demo.majority_miou([np.full((2, 2), 2)], [np.zeros((2, 2), int)], METAINFO)
    assert (majority, miou) == (2, 0)


def test_picture_grid(demo):
    def sample(shade, truth, prediction):
        return np.full((10, 16, 3), shade, np.uint8), np.full((10, 16), truth), np.full((10, 16), prediction)

    samples = [sample(10, 0, 1), sample(20, 1, 2), sample(30, 255, 0)]
    picture = demo.picture_grid(samples, METAINFO, per_row=2, scale=3)
    # Six tiles of 48 x 30 with gaps of 4; a title line, two rows of tiles, one line of legend and its margin.
    assert picture.size == (6 * 52 - 4, 22 + 2 * 34 + 22 + 4)
    at = np.asarray(picture)
    top, second = 22 + 15, 22 + 34 + 15
    centres = [52 * column + 24 for column in range(6)]
    assert [tuple(at[top, x]) for x in centres] == [
        *[(10, 10, 10), (0, 0, 255), (0, 255, 0)],
        *[(20, 20, 20), (0, 255, 0), (255, 255, 0)],
    ]
    assert [tuple(at[second, x]) for x in centres] == [
        *[(30, 30, 30), (0, 0, 0), (0, 0, 255)],
        *[(255, 255, 255)] * 3,
    ]
    for colour in METAINFO['palette']:
        assert (at[22 + 2 * 34 :] == colour).all(-1).any(), 'missing in the legend'


def test_the_config_fits_the_data(demo, load_tool):
    import mmengine

    landcover = load_tool('dataset_converters.landcover')
    config = mmengine.Config.fromfile(demo.CONFIG)
    classes = json.loads(landcover.METAINFO.read_text())['metainfo']
    assert config.train_dataloader.dataset.metainfo.to_dict() == classes
    assert config.val_dataloader.dataset.metainfo.to_dict() == classes
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == len(classes['classes'])
    assert Path(config.data_root) == demo.DATA
    assert max(config.crop_size) <= landcover.TILE


def test_a_finished_run_is_only_reported(demo, tmp_path, monkeypatch, capsys):
    measured = []

    def measure(config, key):
        measured.append(key)
        result = dict(key=key, tiles=3, classes=17, majority_class='water', majority=1.37, untrained=0.5)
        result.update(trained=score, checkpoint='best.pth', training_seconds=200)
        (tmp_path / 'result.json').write_text(json.dumps(result))
        return result

    config = SimpleNamespace(pretty_text='lr = 1')  # reading the real one takes seconds
    monkeypatch.setattr('mmengine.config.Config.fromfile', lambda path: config)
    monkeypatch.setattr(demo, 'measure', measure)
    monkeypatch.setattr(demo, 'OUTPUT', tmp_path)
    monkeypatch.setattr(demo, 'DATA', tmp_path)
    monkeypatch.setattr(demo.landcover, 'main', lambda arguments: None)
    monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
    (tmp_path / 'stamp.json').write_text('one')

    score = 21.5
    demo.main([])
    demo.main([])
    assert len(measured) == 1
    out = capsys.readouterr().out
    assert out.count('mIoU: 21.50') == 2
    assert 'mIoU:  1.37' in out
    demo.main(['--force'])
    assert len(measured) == 2
    (tmp_path / 'stamp.json').write_text('other data')
    demo.main([])
    assert len(measured) == 3
    config.pretty_text = 'lr = 2'
    demo.main([])
    assert len(measured) == 4
    assert len(set(measured)) == 3  # a forced run has the same key

    score = 3.0
    with pytest.raises(SystemExit, match='something is broken'):
        demo.main(['--force'])


def test_labels_are_read_through_mmseg(demo, tmp_path):
    from mmseg import datasets

    for folder, values in (('images', [[0] * 4] * 2), ('annotations', [[0, 1, 2, 3], [3, 2, 1, 0]])):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(np.array(values, np.uint8))
        image.save(tmp_path / folder / ('a.jpg' if folder == 'images' else 'a.png'))
    dataset = datasets.BaseSegDataset(
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        metainfo=METAINFO,
        reduce_zero_label=True,
        pipeline=[
            dict(type='mmseg.LoadImageFromFile'),
            dict(type='mmseg.LoadAnnotations', reduce_zero_label=True),
            dict(type='mmseg.PackSegInputs'),
        ],
    )
    (labels,) = demo.labels_of(dataset)
    np.testing.assert_array_equal(labels, [[[255, 0, 1, 2], [2, 1, 0, 255]]])


def test_missing_data_say_how_to_get_them(tmp_path):
    from sw_mm.datasets import segmentation

    with pytest.raises(FileNotFoundError, match=r'tools/dataset_converters/landcover\.py'):
        segmentation.LandCoverDataset(
            data_root=str(tmp_path / 'landcover'), data_prefix=dict(img_path='images/training'), metainfo=METAINFO
        )
