"""Missing data are reported when a data set is built: what, where, and how to get them."""

import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS

import sw_mm.registry  # noqa: F401
from sw_mm.datasets.checked import CheckedDataMixin


class Files:
    """The part of the libraries' data sets that the mixin builds on."""

    def __init__(self, root='', ann_file='', samples=('a.jpg',), **prefix):
        self.data_root = root
        self.data_prefix = {key: f'{root}/{path}' if root else path for key, path in prefix.items()}
        self.ann_file = ann_file
        self.samples = samples
        self.data_list = self.load_data_list()

    def load_data_list(self):
        return list(self.samples)


class Pictures(CheckedDataMixin, Files):
    HOW_TO_GET = 'Paint them.'
    ALSO_CHANGE = ' and the frame'


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'names.txt').touch()
    return tmp_path


def test_data_that_are_there_are_read(root):
    assert Pictures(root=str(root), img_path='images', ann_file=str(root / 'names.txt')).data_list == ['a.jpg']
    assert Pictures(root=str(root), img_path='images', ann_file=str(root / 'images')).data_list == ['a.jpg']


def test_the_missing_folder_is_named(root):
    with pytest.raises(FileNotFoundError) as error:
        Pictures(root=str(root), img_path='images', seg_map_path='maps')
    message = str(error.value)
    assert message.startswith(f'Pictures: data_prefix.seg_map_path does not exist: {root}/maps.')
    assert 'data_root' not in message.splitlines()[0]
    assert 'Paint them.' in message
    assert 'train_dataloader.dataset.data_root=DIR' in message
    assert message.endswith('` and the frame.')


def test_a_missing_data_root_is_named_with_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        Pictures(root='data/pictures', img_path='images')
    assert 'data_prefix.img_path does not exist: data/pictures/images' in str(error.value)
    assert f"data_root='data/pictures' itself is missing (looked for at {tmp_path}/data/pictures)" in str(error.value)


def test_a_file_is_no_folder_of_images(root):
    with pytest.raises(FileNotFoundError, match=r'data_prefix\.img_path does not exist'):
        Pictures(root=str(root), img_path='names.txt')


def test_a_missing_annotation_file_is_named(root):
    with pytest.raises(FileNotFoundError, match=f'ann_file does not exist: {root}/list.txt'):
        Pictures(root=str(root), img_path='images', ann_file=f'{root}/list.txt')


def test_a_folder_without_samples_is_refused(root):
    with pytest.raises(FileNotFoundError, match=f'no sample found in {root}/images'):
        Pictures(root=str(root), img_path='images', samples=())


def test_paths_of_storage_services_and_empty_ones_are_not_looked_for():
    assert Pictures(img_path='s3://bucket/images', seg_map_path='', ann_file='s3://bucket/names.txt').data_list
    with pytest.raises(FileNotFoundError) as error:
        Pictures(root='s3://bucket', img_path='images', samples=())
    assert 'itself is missing' not in str(error.value)


def test_recipes_look_for_their_data_after_cfg_options(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(recipe.config)

    for split in ('train', 'val', 'test'):
        with pytest.raises(FileNotFoundError) as error:
            DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert f'looked for at {tmp_path / recipe.place}' in str(error.value)
        cfg.merge_from_dict({f'{split}_dataloader.dataset.data_root': str(recipe.data)})
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert len(dataset) > 0

    upstream = type(dataset).__mro__[2]
    assert type(dataset).__name__ == upstream.__name__
    assert dataset.METAINFO is upstream.METAINFO


def test_a_missing_part_of_a_real_layout_is_named(ade20k, coco):
    folders = dict(img_path='images/training', seg_map_path='annotations/nowhere')
    with pytest.raises(FileNotFoundError, match=f'seg_map_path does not exist: {ade20k}/annotations/nowhere'):
        DATASETS.build(dict(type='sw_mm.ADE20KDataset', data_root=str(ade20k), data_prefix=folders))
    with pytest.raises(FileNotFoundError, match=r'ann_file does not exist: .*/instances_train2014\.json') as error:
        DATASETS.build(
            dict(
                type='sw_mm.CocoDataset',
                data_root=str(coco),
                ann_file='annotations/instances_train2014.json',
                data_prefix=dict(img='train2017/'),
            )
        )
    assert 'val_evaluator.ann_file=FILE' in str(error.value)


def test_wrapped_data_sets_are_checked_and_lazy_ones_when_they_are_read(ade20k):
    folders = dict(img_path='images/training', seg_map_path='annotations/training')
    good = dict(type='sw_mm.ADE20KDataset', data_root=str(ade20k), data_prefix=folders)
    bad = dict(good, data_root='nowhere')

    assert len(RepeatDataset(good, times=3)) == 3 * len(DATASETS.build(good))
    with pytest.raises(FileNotFoundError, match="data_root='nowhere'"):
        RepeatDataset(bad, times=3)
    with pytest.raises(FileNotFoundError, match="data_root='nowhere'"):
        ConcatDataset([good, bad])
    lazy = DATASETS.build(dict(bad, lazy_init=True))
    assert len(lazy.metainfo['classes']) == 150
    with pytest.raises(FileNotFoundError, match="data_root='nowhere'"):
        lazy.full_init()
