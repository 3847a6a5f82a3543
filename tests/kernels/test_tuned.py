"""Tables of configurations: what is read, what is refused, which table counts, what a plan makes of it."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('triton')

from sw_mm.kernels import _tuned
from sw_mm.kernels._tuned import Config, Key, use_table
from sw_mm.kernels.depthwise_conv2d import triton as depthwise
from sw_mm.kernels.shift_conv2d import triton as shift

HEAD = 'kernel,channels,size,kernel_size,stride,dilation,dtype,block,tile,column_tile,warps,registers,us\n'
KEY = Key('forward', 96, (14, 14), (7, 9), (1, 1), (1, 1), torch.float32)
ENTRY = 'forward,96,14x14,7x9,1x1,1x1,float32,32,,,1,128,3.1\n'
DEVICE = torch.device('cuda', 0)
SAME = (4, 4, 3, 3)  # padding for 7 x 9


@pytest.fixture
def write(tmp_path):
    def write(text, name='table.csv'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A CUDA device, as far as the search for tables goes; the tables are in a folder of the test."""
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'NVIDIA H100 80GB HBM3')
    properties = SimpleNamespace(major=9, minor=0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: properties)
    monkeypatch.setattr(_tuned, 'SHIPPED', tmp_path / 'shipped')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.delenv(_tuned.VARIABLE, raising=False)
    for cached in (_tuned.shipped, _tuned.of_device):
        cached.cache_clear()
    yield 'sw_mm/tuned/NVIDIA-H100-80GB-HBM3.csv'
    for cached in (_tuned.shipped, _tuned.of_device):
        cached.cache_clear()


def test_a_table_is_read_and_written_alike(write):
    table = _tuned.read(write(f'# origin: a test\n{HEAD}{ENTRY}'))
    assert table == {KEY: Config(block=32, warps=1, registers=128)}
    cells = _tuned.cells(*table.popitem())
    assert ','.join(map(str, cells.values())) + ',3.1\n' == ENTRY
    assert ','.join(cells) + ',us\n' == HEAD


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('forward', 'forwards', r'kernel must be one of .*shift_maps'),
        ('96', '-96', r"channels must be a whole number; got '-96'"),
        ('14x14', '14', r"size must be height and width, as 14x14; got '14'"),
        ('7x9', '7by9', r'kernel_size must be height and width'),
        ('float32', 'float64', r"dtype must be one of .*'bfloat16'.*; got 'float64'"),
        (',32,', ',48,', r'block must be one of \[32, 64, 128, 256\]; got 48'),
        (',32,,', ',32,0,', r'tile must be from 1 to 64; got 0'),
        (',32,,,', ',32,,7,', r'column_tile is for shift_maps only'),
        (',1,128', ',2,128', r'warps must leave no thread without a channel: 2 x 32 threads pass 32'),
        (',128,', ',256,', r'registers must be from 32 to 255; got 256'),
        (',128,', ',many,', r"registers must be a whole number; got 'many'"),
        (',128,3.1', '', r'registers is missing'),
        ('3.1\n', f'3.1\n{ENTRY}', r'another row has the same key'),
    ],
)
def test_a_wrong_entry_is_refused(old, new, message, write):
    path = write(HEAD + ENTRY.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf'table\.csv, entry .*: {message}.*; correct or delete the entry, or write'):
        _tuned.read(path)


def test_a_missing_column_is_named(write):
    with pytest.raises(ValueError, match='warps is missing'):
        _tuned.read(write((HEAD + ENTRY).replace('warps', 'wraps')))


def test_own_table_comes_before_the_shipped_one_and_this_before_the_rules(card, write, monkeypatch):
    other = KEY._replace(channels=64)
    write(HEAD + ENTRY + ENTRY.replace('96', '64'), 'shipped/sm_90.csv')
    assert _tuned.of_device(DEVICE) == dict.fromkeys((KEY, other), Config(block=32, warps=1, registers=128))

    write(HEAD + ENTRY.replace('32,,,1,128', ',,,,'), card)
    _tuned.of_device.cache_clear()
    assert _tuned.of_device(DEVICE) == {KEY: Config(), other: Config(block=32, warps=1, registers=128)}

    monkeypatch.setenv(_tuned.VARIABLE, str(write(HEAD + ENTRY.replace('32,,,1,128', '64,,,2,'), 'named.csv')))
    _tuned.of_device.cache_clear()
    assert _tuned.of_device(DEVICE)[KEY] == Config(block=64, warps=2)

    monkeypatch.setenv(_tuned.VARIABLE, 'nowhere.csv')
    _tuned.of_device.cache_clear()
    with pytest.raises(FileNotFoundError, match=r'no table nowhere\.csv, which SW_MM_TUNED names; .* unset'):
        _tuned.of_device(DEVICE)


def test_other_architectures_and_the_interpreter_have_no_table(card, write, monkeypatch):
    write(HEAD + ENTRY, 'shipped/sm_80.csv')
    assert _tuned.of_device(DEVICE) == {}
    write(HEAD + ENTRY, card)
    monkeypatch.setattr(_tuned, 'INTERPRETED', True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', None)
    _tuned.of_device.cache_clear()
    assert _tuned.of_device(DEVICE) == {}
    assert _tuned.of_device(torch.device('cpu')) == _tuned.of_device(torch.device('meta')) == {}


def image(channels, size, dtype=torch.float32, images=64):
    x = torch.empty(images, channels, *size, dtype=dtype, device='meta')
    return x.contiguous(memory_format=torch.channels_last)


def plan(kernel, x):
    """Plan a kernel of a depthwise or a shift-wise convolution that keeps the size."""
    geometry = (1, 1), SAME, (1, 1)
    weight = torch.empty(x.shape[1], 1, 7, 9, dtype=x.dtype, device='meta')
    strips = [torch.empty(x.shape[1], 1, *size, device='meta') for size in ((3, 9), (9, 3), (3, 3))]
    paddings = (4, 4, 1, 1), (1, 1, 4, 4), (1, 1, 1, 1)
    return {
        'forward': lambda: depthwise.plan_forward(x, weight, None, *geometry),
        'input_grad': lambda: depthwise.plan_input_grad(x, weight, x.shape[2:], *geometry),
        'weight_grad': lambda: depthwise.plan_weight_grad(x, x, (7, 9), *geometry),
        'shift_maps': lambda: shift.plan_maps(x, strips, paddings),
        'shift_sum': lambda: shift.plan_folded(x, strips[:2], None, paddings[:2]),
        'shift_input_grad': lambda: shift.plan_input_grad([x] * 3, strips, paddings),
    }[kernel]()


@pytest.mark.parametrize('size', [(56, 56), (20, 30)], ids=['fixed size', 'open size'])
@pytest.mark.parametrize('kernel', _tuned.KERNELS)
def test_a_plan_takes_what_the_table_says(kernel, size):
    x = image(96, size)
    rules = plan(kernel, x)
    assert rules.key.kernel == kernel
    assert rules.key[1:3] == (96, size)
    with use_table({rules.key._replace(channels=97): Config(block=32)}):
        assert plan(kernel, x).options == rules.options
    with use_table({rules.key: Config(block=64, tile=8, warps=1, registers=100)}):
        tuned = plan(kernel, x)
    assert (tuned.constants['BLOCK'], tuned.num_warps, tuned.max_registers) == (64, 1, 100)
    line = tuned.constants.get('LINE') or tuned.constants['STRIP']
    assert line.tile <= 8
    with use_table({rules.key: Config(warps=1)}):
        assert plan(kernel, x).constants == rules.constants


def test_columns_of_the_maps_have_a_tile_of_their_own():
    x = image(96, (56, 56))
    rules = plan('shift_maps', x)
    with use_table({rules.key: Config(column_tile=14)}):
        tuned = plan('shift_maps', x)
    assert tuned.constants['COLUMN'].tile == 14
    assert tuned.constants['STRIP'] == rules.constants['STRIP']


def test_the_order_of_sums_is_left_to_the_rules():
    """How a batch is split, and how many rows of the sum share a program, is no affair of a table's."""
    x = image(96, (28, 28))
    config = Config(block=32, tile=4, warps=1)
    rules = plan('weight_grad', x), plan('shift_sum', x)
    with use_table({launch.key: config for launch in rules}):
        tuned = plan('weight_grad', x), plan('shift_sum', x)
    assert tuned[0].grid > rules[0].grid
    assert tuned[0].arguments['partial'].shape == rules[0].arguments['partial'].shape
    for name in ('images_per_split', 'lines_per_split'):
        assert tuned[0].arguments[name] == rules[0].arguments[name]
    assert tuned[1].constants['STRIP'].tile < rules[1].constants['STRIP'].tile
    assert tuned[1].constants['ROWS'] == rules[1].constants['ROWS']
