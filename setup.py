"""Build script. Everything static stands in pyproject.toml; here is only what must be computed.

``kernels/`` lives at the top of the repository and installs as ``sw_mm.kernels``, never as a
top-level ``kernels``: that name belongs to another package on PyPI.
"""

from setuptools import find_namespace_packages, setup

packages = find_namespace_packages(include=['sw_mm', 'sw_mm.*'], exclude=['sw_mm.kernels*', 'sw_mm..mim*'])
packages += ['sw_mm.kernels'] + [f'sw_mm.kernels.{name}' for name in find_namespace_packages('kernels')]

setup(packages=packages, package_dir={'sw_mm': 'sw_mm', 'sw_mm.kernels': 'kernels'})
