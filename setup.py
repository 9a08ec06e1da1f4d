"""Says which files ship; everything else about the package is in ``pyproject.toml``."""

from setuptools import find_namespace_packages, setup

# package_dir makes an editable install a plain path entry, so that twistd finds the plugin in it.
setup(
    packages=find_namespace_packages(include=["chatsvc", "chatsvc.*", "twisted.plugins"]),
    package_dir={"": "."},
)
