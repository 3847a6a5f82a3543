"""Metafiles, READMEs, file names and the texts of the configs agree with each other, down to the published numbers."""

import ast
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlparse

import pytest

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / 'configs'
# Where authors host weights themselves; mmpretrain's server holds its conversion of RepLKNet's.
HOSTS = {'huggingface.co', 'download.openmmlab.com'}
SHORT_NAMES = {'sw_imagenet', 'upernet_sw_ade20k', 'upernet_sw_cityscapes', 'cascade_mask_rcnn_sw_coco'}
NAME = re.compile(
    r'((upernet|deeplabv3plus|fcos|faster-rcnn|mask-rcnn|cascade-mask-rcnn)_)?'  # nothing: a classifier
    r'(?P<backbone>[a-z0-9.-]+)_'
    r'([a-z0-9]+-pre_)?'  # pre-training
    r'(?P<gpus>\d+)xb(?P<images>\d+)(-accum(?P<accumulated>\d+))?-'
    r'(ms-crop-)?(?P<schedule>\d+e|\d+k|[123]x)_'
    r'(?P<data>in1k|in22k|ade20k|cityscapes|coco|voc07)(-(?P<size>\d+x\d+|\d+px))?'
)


def docstring(path: Path) -> str:
    return ' '.join(ast.get_docstring(ast.parse(path.read_text())).split())


def metrics(model: dict) -> set[float]:
    return {value for result in model.get('Results', []) for value in result['Metrics'].values()}


def decimals(text: str) -> set[float]:
    return {float(number) for number in re.findall(r'(?<![\d.])\d\d\.\d+(?![\d.])', text)}


def split_name(model: dict) -> dict[str, str]:
    return NAME.fullmatch(model['Name']).groupdict()


def test_every_config_is_in_one_metafile(models):
    listed = Counter(model['Config'] for model in models)
    files = {path for path in CONFIGS.rglob('*.py') if path.relative_to(CONFIGS).parts[0] not in ('_base_', 'demo')}
    assert {REPOSITORY / config for config in listed} == files
    assert [config for config, times in listed.items() if times > 1] == []


def test_every_metafile_is_in_the_index():
    index = (REPOSITORY / 'model-index.yml').read_text()
    assert set(re.findall(r'\S+metafile\.yml', index)) == {
        str(path.relative_to(REPOSITORY)) for path in CONFIGS.glob('*/metafile.yml')
    }


def test_names(models):
    for model in models:
        name, path = model['Name'], Path(model['Config'])
        assert name == name.lower(), 'mim looks names up in lower case'
        assert path.stem == name
        assert name in SHORT_NAMES or NAME.fullmatch(name), name
    assert [name for name, times in Counter(model['Name'] for model in models).items() if times > 1] == []


def test_batch_and_length_are_those_of_the_name(models):
    for model in models:
        if model['Name'] in SHORT_NAMES:
            continue
        name, metadata = split_name(model), model['Metadata']
        images = int(name['gpus']) * int(name['images'])
        assert metadata['Batch Size'] == images * int(name['accumulated'] or 1), model['Name']
        plural = '' if name['images'] == '1' else 's'
        assert f'{name["gpus"]} GPUs x {name["images"]} image{plural}' in docstring(REPOSITORY / model['Config'])
        number, unit = int(name['schedule'][:-1]), name['schedule'][-1]
        if unit == 'k':
            assert metadata['Iterations'] == 1000 * number
        else:
            assert metadata['Epochs'] == (number if unit == 'e' else 12 * number)


@pytest.mark.parametrize('folder', sorted(path.parent.name for path in CONFIGS.glob('*/metafile.yml')))
def test_one_config_a_row_and_the_same_numbers_everywhere(models, folder):
    """Each config is the last cell of one row in the README of its family, which repeats its published scores."""
    readme = CONFIGS / folder / 'README.md'
    rows = {}
    for *cells, last in re.findall(r'^\|(.*)\|(.*)\|$', readme.read_text(), re.MULTILINE):
        for link in re.findall(r'\]\((\S+\.py)\)', last):
            path = (readme.parent / link).resolve()
            assert path not in rows, f'{link} has two rows'
            rows[path] = [cell.strip() for cell in '|'.join(cells).split('|')]
    ours = [m for m in models if f'configs/{folder}/README.md' in m['Collection README']]
    assert rows.keys() == {REPOSITORY / model['Config'] for model in ours}
    for model in ours:
        path = REPOSITORY / model['Config']
        text = docstring(path)
        assert metrics(model) <= decimals(text.replace('. ', ' ')), model['Name']
        assert metrics(model) <= decimals(' '.join(rows[path])), model['Name']
        claims = 'fficial result' in text or 'esult published by' in text
        assert claims == bool(metrics(model)), f'{model["Name"]}: metafile and docstring disagree on a published result'


def test_weights_are_where_their_authors_put_them(models):
    links = [model['Weights'] for model in models if 'Weights' in model]
    for link in links:
        url = urlparse(link)
        assert url.scheme == 'https'
        assert url.hostname in HOSTS
        assert url.path.endswith('.pth')
    assert len(links) == len(set(links))


TASKS = {
    'ImageNet-1K': ('classifier', 'in1k'),
    'ImageNet-22K': ('classifier', 'in22k'),
    'ADE20K, UPerNet': ('upernet', 'ade20k'),
    'Cityscapes, UPerNet': ('upernet', 'cityscapes'),
    'Cityscapes, DeepLabV3+': ('deeplabv3plus', 'cityscapes'),
    'COCO, FCOS': ('fcos', 'coco'),
    'COCO, Mask R-CNN': ('mask', 'coco'),
    'COCO, Cascade Mask R-CNN': ('cascade', 'coco'),
    'VOC 2007, Faster R-CNN': ('faster', 'voc07'),
}


def test_the_overview_counts_right(kinds):
    text = (CONFIGS / 'README.md').read_text()
    head, _, *rows = [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('|')]
    families = [re.match(r'\[(\w+)\]\(\w+/README\.md\)', cell).group(1) for cell in head[1:]]
    table = {
        (family, *TASKS[row[0]]): int(cell)
        for row in rows[:-1]
        for family, cell in zip(families, row[1:], strict=True)
        if cell.isdigit()
    }
    assert table == Counter(kinds)
    assert dict(zip(families, map(int, rows[-1][1:]), strict=True)) == Counter(family for family, *_ in kinds)
    assert f'{len(kinds)} of them' in text
