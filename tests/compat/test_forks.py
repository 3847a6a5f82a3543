"""``mmseg::`` leads to the fork where only the fork is installed. ``tests/stacks`` tries it on the real ones."""

from types import SimpleNamespace

import pytest

from sw_mm.compat import forks, stacks


@pytest.mark.parametrize(
    ('installed', 'name'),
    [
        (['onedl-mmsegmentation', 'onedl-mmengine'], 'onedl-mmsegmentation'),
        (['mmsegmentation', 'mmengine'], 'mmsegmentation'),
        (['mmsegmentation', 'onedl-mmsegmentation'], 'mmsegmentation'),
        (['onedl-mmengine'], 'mmsegmentation'),
    ],
)
def test_the_name_of_mmseg(installed, name, monkeypatch):
    monkeypatch.setattr(stacks, 'installed_versions', lambda: dict.fromkeys(installed, '1.0'))
    table = {'mmseg': 'mmsegmentation', 'mmdet': 'mmdet'}
    forks._name_the_fork(SimpleNamespace(MODULE2PACKAGE=table))
    assert table == {'mmseg': name, 'mmdet': 'mmdet'}
