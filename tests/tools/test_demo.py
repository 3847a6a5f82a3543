"""The parts of the demos that can be checked by hand; `make demo`, `demo-det` and `demo-cls` run the whole."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from PIL import Image

import sw_mm.registry  # noqa: F401
from sw_mm.backbones import ShiftWiseNet

METAINFO = {'classes': ['sea', 'wood', 'sand'], 'palette': [[0, 0, 255], [0, 255, 0], [255, 255, 0]]}


@pytest.fixture(scope='module')
def demo(load_tool):
    return load_tool('demo')


@pytest.fixture(scope='module')
def task(load_tool):
    """Function that gives what the demo knows of a task."""
    return lambda name: load_tool(f'demos.{name}')


# ---------------------------------------------------------------------------------------------- segmentation


def labelled(*rows):
    from mmseg.structures import SegDataSample

    return SegDataSample(gt_sem_seg=PixelData(data=torch.tensor(rows)[None]))


class Maps(list):
    metainfo = METAINFO


def test_majority_class_of_pixels_by_hand(task):
    training = Maps(dict(data_samples=labelled(*rows)) for rows in ([[1, 1, 1, 0]], [[2, 1, 255, 255]]))
    name, answer = task('segmentation').constant_answer(training)
    assert name.startswith('"wood" everywhere')
    evaluator = Evaluator(dict(type='mmseg.IoUMetric'))
    evaluator.dataset_meta = METAINFO
    for rows in ([[0, 0, 0, 1]], [[1, 1, 255, 255]]):
        evaluator.process([answer(labelled(*rows))])
    # 3 of 6 labelled pixels are right. IoU is 0 for sea, 3/6 for wood; sand occurs nowhere and is left out of the mean.
    assert evaluator.evaluate(2)['mIoU'] == pytest.approx(100 * (0 + 3 / 6) / 2, abs=0.01)


def test_picture_of_maps(task):
    def sample(shade, truth, prediction):
        result = labelled(*np.full((10, 16), truth).tolist())
        result.pred_sem_seg = PixelData(data=torch.full((1, 10, 16), prediction))
        return np.full((10, 16, 3), shade, np.uint8), result

    samples = [sample(10, 0, 1), sample(20, 1, 2), sample(30, 255, 0)]
    picture = task('segmentation').picture(samples, METAINFO, per_row=2, scale=3)
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


# ------------------------------------------------------------------------------------------------- detection


class Boxes(list):
    def get_data_info(self, index):
        return dict(instances=[dict(bbox=box) for box in self[index]])


def test_grid_of_mean_boxes_by_hand(task, tmp_path):
    from mmdet.structures import DetDataSample

    # 20 wide and 10 high in the mean.
    training = Boxes([[[0, 0, 10, 10], [5, 5, 35, 10]], [[0, 0, 20, 15]]])
    name, answer = task('detection').constant_answer(training)
    assert name == 'a grid of mean boxes, 20 x 10 pixels'
    sample = answer(DetDataSample(metainfo=dict(img_id=1, ori_shape=(25, 45))))
    expected = [[0, 0, 20, 10], [20, 0, 40, 10], [0, 10, 20, 20], [20, 10, 40, 20]]
    assert sample.pred_instances.bboxes.tolist() == expected

    # Of two trees one is hit, by the third of four boxes with equal scores: the precision is 1/3 up to a recall of 1/2.
    trees = [
        dict(id=left + 1, image_id=1, category_id=1, iscrowd=0, area=200, bbox=[left, 10, 20, 10]) for left in (0, 200)
    ]
    annotation = dict(images=[dict(id=1, width=45, height=25)], annotations=trees, categories=[dict(id=1, name='tree')])
    (tmp_path / 'val.json').write_text(json.dumps(annotation))
    evaluator = Evaluator(dict(type='mmdet.CocoMetric', metric='bbox', ann_file=str(tmp_path / 'val.json')))
    evaluator.dataset_meta = dict(classes=('tree',))
    evaluator.process([sample])
    average = evaluator.evaluate(1)[task('detection').METRIC]
    assert average == pytest.approx(51 / 101 / 3, abs=1e-3)  # 51 of COCO's 101 recalls are reached


def test_picture_of_boxes(task):
    from mmdet.structures import DetDataSample

    sample = DetDataSample()
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 10, 30, 30]]))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 20, 40, 40], [50, 50, 70, 70]]), scores=torch.tensor([0.9, 0.1])
    )
    image = np.zeros((80, 100, 3), np.uint8)
    picture = np.asarray(task('detection').picture([(image, sample)], dict(palette=[(255, 0, 0)]), scale=1.0))
    assert picture.shape == (22 + 80 + 4, 2 * 100 + 4, 3)
    red = (picture == (255, 0, 0)).all(-1)
    left, right = red[22:102, :100], red[22:102, 104:]
    assert left[10, 20]
    assert right[20, 30]
    assert not left[20:28, 12:28].any()
    assert not right[45:].any(), 'a box that is hardly believed'


# -------------------------------------------------------------------------------------------- classification


def labelled_image(truth, prediction=None):
    from mmpretrain.structures import DataSample

    sample = DataSample().set_gt_label(truth)
    return sample if prediction is None else sample.set_pred_score(torch.eye(3)[prediction])


def test_majority_class_of_images_by_hand(task):
    training = SimpleNamespace(metainfo=METAINFO, get_gt_labels=lambda: np.array([0, 2, 2, 1]))
    name, answer = task('classification').constant_answer(training)
    assert name.startswith('"sand" always')
    evaluator = Evaluator(dict(type='mmpretrain.Accuracy', topk=(1,)))
    evaluator.process([answer(labelled_image(truth)) for truth in (0, 2, 1, 1)])
    assert evaluator.evaluate(4)[task('classification').METRIC] == 25


def test_picture_of_images(task):
    samples = [(np.full((8, 8, 3), shade, np.uint8), labelled_image(0, shade // 100)) for shade in (50, 150, 50)]
    picture = np.asarray(task('classification').picture(samples, METAINFO, per_row=2, side=64))
    assert picture.shape == (2 * (64 + 36 + 6), 2 * 70 - 6, 3)
    assert [picture[32, 32, 0], picture[32, 70 + 32, 0], picture[106 + 32, 32, 0]] == [50, 150, 50]
    red = (picture[..., 0] > 200) & (picture[..., 1:] < 100).all(-1)
    assert red[82:100, 70:].any(), 'a mistake is named'
    assert not red[:, :64].any()


# ------------------------------------------------------------------------------------------------- all tasks


@pytest.fixture(scope='module')
def configs(demo, task):
    return {name: Config.fromfile(demo.REPOSITORY / task(name).CONFIG) for name in demo.TASKS}


@pytest.mark.parametrize('name', ['segmentation', 'detection', 'classification'])
def test_config_and_converter_fit_together(name, demo, task, load_tool, configs, tmp_path, monkeypatch):
    config, this = configs[name], task(name)
    converter = load_tool(f'dataset_converters.{this.DATA.name}')
    assert Path('data', converter.DATASET.name) == this.DATA == Path(config.data_root)
    assert config.default_scope == this.LIBRARY
    assert config.default_hooks.checkpoint.save_best == this.METRIC
    assert config.model.backbone.type == 'sw_mm.ShiftWiseNet'
    assert ShiftWiseNet(**{k: v for k, v in config.model.backbone.items() if k not in ('type', 'norm_cfg', 'init_cfg')})
    monkeypatch.chdir(tmp_path)
    init_default_scope(this.LIBRARY)
    for loader in (config.train_dataloader, config.val_dataloader):
        with pytest.raises(FileNotFoundError, match=rf'tools/dataset_converters/{this.DATA.name}\.py'):
            DATASETS.build(loader.dataset)


def test_land_cover_classes(configs, load_tool):
    config, landcover = configs['segmentation'], load_tool('dataset_converters.landcover')
    classes = json.loads(landcover.METAINFO.read_text())['metainfo']
    assert config.train_dataloader.dataset.metainfo.to_dict() == classes
    assert config.val_dataloader.dataset.metainfo.to_dict() == classes
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == len(classes['classes'])
    assert max(config.crop_size) <= landcover.TILE


def test_a_finished_run_is_only_reported(demo, task, tmp_path, monkeypatch, capsys):
    measured, commands = [], []

    def measure(this, config, key, output):
        measured.append(key)
        result = dict(key=key, constant_answer='water everywhere', constant=1.37, untrained=0.5)
        result.update(trained=score, checkpoint='best.pth', training_seconds=200)
        output.mkdir(exist_ok=True)
        (output / 'result.json').write_text(json.dumps(result))
        return result

    config = SimpleNamespace(pretty_text='lr = 1')  # reading the real one takes seconds
    this = task('detection')
    monkeypatch.setattr('mmengine.config.Config.fromfile', lambda path: config)
    monkeypatch.setattr(demo, 'import_module', lambda name: {'demos.detection': this}[name])
    monkeypatch.setattr(demo, 'measure', measure)
    monkeypatch.setattr(demo, 'run', lambda *command: commands.append(command))
    monkeypatch.setattr(demo, 'OUTPUT', tmp_path)
    monkeypatch.setattr(this, 'DATA', tmp_path / 'treecrowns')
    monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
    (tmp_path / 'treecrowns').mkdir()
    (tmp_path / 'treecrowns' / 'stamp.json').write_text('one')

    score = 21.5
    demo.main(['detection'])
    demo.main(['detection', '--source', 'here'])
    assert len(measured) == 1
    assert [command[0].name for command in commands] == ['treecrowns.py'] * 2
    assert commands[0][1:] == ('--output', tmp_path / 'treecrowns')
    assert commands[1][3:] == ('--source', 'here')
    out = capsys.readouterr().out
    assert out.count('AP50: 21.50') == 2
    assert 'AP50:  1.37' in out
    demo.main(['detection', '--force'])
    assert len(measured) == 2
    (tmp_path / 'treecrowns' / 'stamp.json').write_text('other data')
    demo.main(['detection'])
    assert len(measured) == 3
    config.pretty_text = 'lr = 2'
    demo.main(['detection'])
    assert len(measured) == 4
    assert len(set(measured)) == 3  # a forced run has the same key

    score = 3.0
    with pytest.raises(SystemExit, match='something is broken'):
        demo.main(['detection', '--force'])


def test_the_tasks_are_there(demo, monkeypatch):
    monkeypatch.syspath_prepend(demo.REPOSITORY / 'tools')
    for name in demo.TASKS:
        importlib.import_module(f'demos.{name}')


def test_a_failing_command_ends_the_demo(demo, tmp_path):
    (tmp_path / 'fails.py').write_text('raise SystemExit(3)')
    with pytest.raises(SystemExit, match=r'demo: fails\.py failed'):
        demo.run(tmp_path / 'fails.py')


def test_constant_answers_go_through_the_evaluator_of_the_config(demo, task, tmp_path):
    """On label maps as mmseg reads them: 255 where the file says 0."""
    for folder, values in (('images', [[0] * 4] * 2), ('annotations', [[0, 1, 2, 3], [3, 3, 1, 0]])):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(np.array(values, np.uint8))
        image.save(tmp_path / folder / ('a.jpg' if folder == 'images' else 'a.png'))
    pipeline = [
        dict(type='mmseg.LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations', reduce_zero_label=True),
        dict(type='mmseg.PackSegInputs'),
    ]
    dataset = dict(
        type='mmseg.BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        metainfo=METAINFO,
        reduce_zero_label=True,
        pipeline=pipeline,
    )
    config = Config(
        dict(
            train_dataloader=dict(dataset=dataset),
            val_dataloader=dict(dataset=dataset),
            test_pipeline=pipeline,
            val_evaluator=dict(type='mmseg.IoUMetric'),
        )
    )
    name, score = demo.constant_score(task('segmentation'), config)
    assert name.startswith('"sand"')
    assert score == pytest.approx(100 * (3 / 6) / 3, abs=0.01)  # sea and wood occur and are never answered
