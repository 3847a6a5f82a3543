"""The configs of all metafiles; of each family and task, the first one stands for the others where time is short."""

import copy
import functools
import re
from collections.abc import Callable
from pathlib import Path

import mmengine.config.config
import mmengine.config.utils
import pytest
import yaml
from mmengine.config import Config

REPOSITORY = Path(__file__).parents[2]


@functools.cache
def read_models() -> list[dict]:
    """Return the models of all metafiles, each with the README of its collection."""
    models = []
    for file in yaml.safe_load((REPOSITORY / 'model-index.yml').read_text())['Import']:
        metafile = yaml.safe_load((REPOSITORY / file).read_text())
        (collection,) = metafile['Collections']
        models += [{**model, 'Collection README': collection['README']} for model in metafile['Models']]
    return models


def kind_of(model: dict) -> tuple[str, ...]:
    """Return family, algorithm and data set, as the file name has them."""
    stem = Path(model['Config']).stem
    algorithm = re.match('upernet|deeplabv3plus|fcos|faster|mask|cascade', stem)
    data = re.findall('in1k|in22k|imagenet|ade20k|cityscapes|coco|voc07', stem)[-1]
    return model['In Collection'], algorithm.group() if algorithm else 'classifier', data.replace('imagenet', 'in1k')


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for a ``model`` for each of the metafiles; one of each kind is quick, the others are slow."""
    if 'model' not in metafunc.fixturenames:
        return
    seen, params = set(), []
    for model in read_models():
        marks = [pytest.mark.slow] if kind_of(model) in seen else []
        seen.add(kind_of(model))
        params.append(pytest.param(model, id=model['Name'], marks=marks))
    metafunc.parametrize('model', params)


@pytest.fixture(scope='session', autouse=True)
def _spare_mmengine_what_takes_seconds():
    """Read the metafiles of a library once, not for each ``_base_`` in it, and print configs without yapf's beauty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            mmengine.config.utils, '_get_cfg_metainfo', functools.cache(mmengine.config.utils._get_cfg_metainfo)
        )
        patch.setattr(mmengine.config.config, 'FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session')
def models() -> list[dict]:
    """The models of all metafiles."""
    return read_models()


@pytest.fixture(scope='session')
def kinds(models: list[dict]) -> list[tuple[str, ...]]:
    """Family, algorithm and data set of each of them."""
    return [kind_of(model) for model in models]


@pytest.fixture(scope='session')
def parse() -> Callable[[str], Config]:
    """Parse a config, given by its path in the repository, once."""

    @functools.cache
    def read(path: str) -> Config:
        return Config.fromfile(REPOSITORY / path)

    return lambda path: copy.deepcopy(read(path))
