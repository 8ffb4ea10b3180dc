"""Packaging: the dependencies as sets that were tested together, extras and console script."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tfopt" / "__init__.py").read_text()).group(1)

EDGE = ["ai-edge-quantizer==0.10.0"]
WANDB = ["wandb>=0.19,<1"]
_THERE = "python_version >= '3.11' and sys_platform == 'linux'"
TPU_CHECK = [f"jax==0.10.2; {_THERE}", f"libtpu==0.0.52; {_THERE}"]

setup(
    name="tfopt",
    version=VERSION,
    description="Makes Keras models small and fast, and proves what it exports.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["tfopt", "tfopt.*"]), "tfopt.configs"],
    package_dir={"tfopt.configs": "configs"},
    package_data={"tfopt": ["templates/*"]},
    install_requires=[
        # TensorFlow and tf_keras must be of one minor release; tf_keras pins the patch itself.
        "tensorflow>=2.19,<2.22",
        "tf_keras>=2.19,<2.22",
        "tensorflow-model-optimization==0.8.1",
        "tensorboard>=2.19,<2.22",
        "absl-py>=1.4,<2",
        "ml-collections==1.1.0",
        "ai-edge-litert>=2.1,<3",
        "etils[epath]>=1.7,<2",
        "flatbuffers>=24.3",
        "pillow>=10",
        "h5py>=3.11,<4",
        "scipy>=1.11,<2",
        "scikit-learn>=1.5,<2",
        "matplotlib>=3.9,<4",
        "jinja2>=3.1,<4",
        "tabulate>=0.9,<1",
        "typing_extensions>=4.1; python_version < '3.11'",
    ],
    extras_require={
        # It is tested with one release of LiteRT, 2.3.0, and asks for that one itself.
        "edge": EDGE,
        # Google's TPU compiler, which needs no TPU; Linux, Python 3.11 on.
        "tpu-check": TPU_CHECK,
        # Weights & Biases, as a logger beside TensorBoard.
        "wandb": WANDB,
        "dev": [
            *EDGE,
            *TPU_CHECK,
            *WANDB,
            "build>=1.2",
            "import-linter>=2.1",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "playwright>=1.49",
            "pre-commit>=4.0",
            "pyright[nodejs]>=1.1.400",
            "pyyaml>=6.0",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.11",
        ],
    },
    entry_points={"console_scripts": ["tfopt=tfopt.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
