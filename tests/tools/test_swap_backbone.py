"""The command line that puts a backbone into a config."""

import logging

import pytest
from mmengine.config import Config

FCOS = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('swap_backbone')


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == 'sw_mm']


def test_writes_a_config_and_says_what_changed(tool, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, 'sw_mm'):
        tool.main([FCOS, '--backbone', 'convnext31-small'])
    first, *changes, last = lines_of(caplog)
    name = 'fcos_convnext31-small_fpn_gn-head_1x_coco.py'
    assert first == f'{name}: convnext31-small in the place of ResNet'
    assert '  model.neck.in_channels = [192, 384, 768]' in changes
    assert any("RGB with ImageNet's mean" in line for line in changes)
    assert last == f'Next: mim train mmdet {name}'
    config = Config.fromfile(tmp_path / name)
    assert config.model.backbone.type == 'sw_mm.LargeKernelConvNeXt'
    assert config.custom_imports.imports == ['sw_mm.registry']
    assert (tmp_path / name).read_text().splitlines()[0].endswith(f'in the place of ResNet, in {FCOS}.')


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'slak-tiny_8xb32_in1k.py'),
        (
            'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024',
            'pspnet_slak-tiny_4xb2-40k_cityscapes-512x1024.py',
        ),
        ('configs/mine.py', 'slak-tiny.py'),
    ],
)
def test_name_of_the_file(tool, config, name):
    assert tool.file_name(config, 'slak-tiny') == name


def test_another_folder_inherits_by_its_path(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text(f"_base_ = '{FCOS}'\n")
    tool.main(['mine.py', '--backbone', 'shiftwise-tiny', '-o', 'out/of/here.py'])
    assert "_base_ = '../../mine.py'\n" in (tmp_path / 'out/of/here.py').read_text()
    assert Config.fromfile('out/of/here.py').model.neck.in_channels == [160, 320, 640]


def test_a_file_is_replaced_only_on_demand(tool, tmp_path):
    out = tmp_path / 'out.py'
    out.write_text('mine')
    with pytest.raises(SystemExit, match=r'swap_backbone: .*out\.py exists; choose another name, or pass --force'):
        tool.main([FCOS, '--backbone', 'shiftwise-tiny', '-o', str(out)])
    assert out.read_text() == 'mine'
    tool.main([FCOS, '--backbone', 'shiftwise-tiny', '-o', str(out), '--force'])
    assert FCOS in out.read_text()


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('mmseg::bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py', 'BiSeNetV1 is the architecture'),
        ('mmseg::setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py', 'SETRUPHead takes 4 maps of one resolution'),
        ('nowhere.py', "there is no config 'nowhere.py'"),
    ],
)
def test_what_cannot_work_is_one_line_and_no_file(tool, tmp_path, config, message):
    with pytest.raises(SystemExit, match=f'^swap_backbone: .*{message}'):
        tool.main([config, '--backbone', 'shiftwise-tiny', '-o', str(tmp_path / 'out.py')])
    assert not list(tmp_path.iterdir())


def test_help_lists_the_backbones(tool, capsys):
    with pytest.raises(SystemExit, match='0'):
        tool.main(['--help'])
    assert 'replknet-31l' in capsys.readouterr().out.replace('\n', '')
