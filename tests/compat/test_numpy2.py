"""mmcv's photometric code under NumPy 2."""

import colorsys

import numpy as np
import pytest

import sw_mm.compat  # noqa: F401

mmcv = pytest.importorskip('mmcv')


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize('backend', ['cv2', 'pillow', None])
@pytest.mark.parametrize('factor', [-0.5, -0.2, -0.01, 0.0, 0.3])
def test_adjust_hue(image, backend, factor):
    turned = mmcv.adjust_hue(image, factor, backend)
    assert turned.dtype == np.uint8
    for before, after in zip(image.reshape(-1, 3), turned.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before[::-1] / 255)
        expected = np.array(colorsys.hsv_to_rgb((hue + factor) % 1, saturation, value))[::-1] * 255
        # Hue and saturation are rounded to 8 bits on the way.
        assert np.abs(after - expected).max() < 12


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_hue_comes_back(image, backend):
    there_and_back = mmcv.adjust_hue(mmcv.adjust_hue(image, 0.2, backend), -0.2, backend)
    assert np.abs(there_and_back.astype(int) - image).max() < 20
    whole_turn = mmcv.adjust_hue(image, -0.5, backend), mmcv.adjust_hue(image, 0.5, backend)
    assert np.abs(np.subtract(*whole_turn, dtype=int)).max() < 12


def test_other_dtypes(image):
    turned = mmcv.adjust_hue(image.astype(np.float32), -0.2, 'cv2')
    assert turned.dtype == np.float32
    assert np.array_equal(turned, mmcv.adjust_hue(image, -0.2, 'cv2'))
    with pytest.raises(TypeError, match='uint8'):
        mmcv.adjust_hue(image.astype(np.float32), -0.2, 'pillow')


def test_bad_input_is_refused_as_before(image):
    with pytest.raises(ValueError, match='hue_factor'):
        mmcv.adjust_hue(image, -0.6)
    with pytest.raises(ValueError, match='backend'):
        mmcv.adjust_hue(image, -0.2, 'turbojpeg')
    with pytest.raises(TypeError, match='img'):
        mmcv.adjust_hue('image.png', -0.2)


def test_color_jitter(image):
    transforms = pytest.importorskip('mmpretrain.datasets.transforms')
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    for _ in range(20):
        assert jitter(dict(img=image))['img'].shape == image.shape
