"""Files by URL: https only, through torch's cache, and the very file that was meant or none."""

import hashlib
import io
from urllib.error import URLError

import pytest
import torch
from torch import hub

from sw_mm.checkpoint.download import fetch

URL = 'https://example.com/files/resolve/main/net%201.pth?download=true'


class Response(io.BytesIO):
    """As much of a response as torch asks for."""

    def info(self):
        return self

    def get_all(self, _):
        return [str(len(self.getvalue()))]


@pytest.fixture
def content(tmp_path):
    torch.save(dict(weight=torch.ones(3)), tmp_path / 'made.pth')
    return (tmp_path / 'made.pth').read_bytes()


@pytest.fixture
def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def web(tmp_path, monkeypatch, content):
    """The internet, which gives ``answer``, or raises it, and notes what it was asked for; the cache is empty."""

    class Web:
        answer = content
        asked = ()
        cache = tmp_path / 'hub' / 'checkpoints'

        def open(self, request):
            self.asked += (request.full_url,)
            if isinstance(self.answer, Exception):
                raise self.answer
            return Response(self.answer)

    web = Web()
    monkeypatch.setattr(hub, 'urlopen', web.open)
    monkeypatch.setattr(hub, '_hub_dir', str(tmp_path / 'hub'))
    return web


@pytest.mark.parametrize('digits', [None, 8, 64])
def test_a_url_is_downloaded_once(web, content, sha256, digits):
    given = digits and sha256[:digits].upper()
    path = fetch(URL, given)
    assert path == web.cache / 'net 1.pth'
    assert path.read_bytes() == content
    assert fetch(URL, given) == path
    assert web.asked == (URL,)
    assert [entry.name for entry in web.cache.iterdir()] == ['net 1.pth']


def test_a_cached_file_that_is_another_is_replaced(web, content, sha256):
    web.cache.mkdir(parents=True)
    (web.cache / 'net 1.pth').write_bytes(b'something else')
    assert fetch(URL, sha256).read_bytes() == content


def test_a_download_that_is_another_file_is_refused_and_not_kept(web):
    with pytest.raises(ValueError, match=r'does not have sha256=.00000000.'):
        fetch(URL, '00000000')
    assert not list(web.cache.iterdir())


@pytest.mark.parametrize('answer', [b'', b'<!DOCTYPE html><title>Sign in</title>', 'part'])
def test_what_is_no_checkpoint_is_refused_and_not_kept(web, content, answer):
    web.answer = content[:-50] if answer == 'part' else answer
    with pytest.raises(ValueError, match=f'gave {len(web.answer)} bytes that are no checkpoint'):
        fetch(URL)
    assert not list(web.cache.iterdir())


def test_no_network_is_one_error_with_a_remedy(web):
    web.answer = URLError('no route to host')
    with pytest.raises(ConnectionError, match=r'no route to host.*; fetch it some other way and give its path'):
        fetch(URL)
    assert not list(web.cache.iterdir())


@pytest.mark.parametrize(
    'url',
    ['http://example.com/a.pth', 'ftp://example.com/a.pth', 'file:///etc/passwd', 'https://example.com', 'https:///a'],
)
def test_only_https_urls_of_files_are_asked_for(web, url):
    with pytest.raises(ValueError, match='must be an https URL that ends in the name of a file, or a path'):
        fetch(url)
    assert web.asked == ()


@pytest.mark.parametrize('digits', [8, 20, 64])
def test_local_files_are_verified(content, sha256, digits, tmp_path):
    assert fetch(tmp_path / 'made.pth', sha256[:digits]) == tmp_path / 'made.pth'
    wrong = '0' * digits
    with pytest.raises(ValueError, match=rf'made\.pth.* has the SHA-256 {sha256}, not sha256=.{wrong}.'):
        fetch(tmp_path / 'made.pth', wrong)


@pytest.mark.parametrize('sha256', ['', '1234567', '0' * 65, 'g' * 64, 12345678, b'12345678'])
def test_a_sha256_has_to_be_one(tmp_path, sha256):
    with pytest.raises(ValueError, match='sha256 must be at least the first 8'):
        fetch(tmp_path, sha256)


def test_a_file_of_the_home_folder_is_found(content, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert fetch('~/made.pth') == tmp_path / 'made.pth'


@pytest.mark.parametrize('place', ['nowhere.pth', '.'])
def test_a_path_that_is_no_file_is_refused(tmp_path, place):
    with pytest.raises(FileNotFoundError, match=r'checkpoint=.* is not a file') as error:
        fetch(tmp_path / place)
    assert str(tmp_path) in str(error.value)


def test_a_checkpoint_has_to_be_a_path():
    with pytest.raises(TypeError, match='checkpoint must be a path or an https URL; got 3'):
        fetch(3)
