"""Imports run downward only: the floors of the package, checked on the source text."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    'sw_mm.compat': -1,
    'sw_mm._startup': 0,
    'sw_mm.kernels': 0,
    'sw_mm.layers': 1,
    'sw_mm.backbones': 2,
    'sw_mm.engine': 2,
    **dict.fromkeys(
        [f'sw_mm.{name}' for name in ('analysis', 'checkpoint', 'datasets', 'deploy', 'model_hub', 'sparse', 'swap')],
        3,
    ),
    'sw_mm.registry': 4,
    'sw_mm': 4,
}
TASK_LIBRARIES = {'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg'}
MODULES = {
    '.'.join((package, *path.relative_to(folder).with_suffix('').parts)).removesuffix('.__init__'): path
    for package, folder in (('sw_mm', ROOT / 'sw_mm'), ('sw_mm.kernels', ROOT / 'kernels'))
    for path in sorted(folder.rglob('[!.]*.py'))
}


def part(module: str) -> str:
    """The part of the package that a module belongs to; a new part has to be given a floor."""
    name = '.'.join(module.split('.')[:2])
    return name if name in FLOORS else 'sw_mm' if module == 'sw_mm' else pytest.fail(f'{name} has no floor')


def imports(module: str, path: Path) -> set[str]:
    package = module if path.name == '__init__.py' else module.rpartition('.')[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            names |= {f'{base}.{alias.name}' for alias in node.names} if base == 'sw_mm' else {base}
    return names


@pytest.mark.parametrize('module', MODULES)
def test_imports_run_downward(module):
    here = part(module)
    for name in imports(module, MODULES[module]):
        if name.split('.')[0] == 'sw_mm' and not name.startswith('sw_mm.__'):
            assert part(name) == here or FLOORS[part(name)] < FLOORS[here], f'{module} imports {name}'
        elif FLOORS[here] in (0, 1):
            assert name.split('.')[0] not in TASK_LIBRARIES, f'{module} imports {name}'
