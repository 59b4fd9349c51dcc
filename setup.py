"""The one part of the build that pyproject.toml cannot describe: the 2:4 kernels, a shared library of C++.

It is optional: without a compiler the rest installs, and `vlmc doctor` says what is lost. No flag names this machine's CPU;
the kernels choose their instruction set when they run.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("runtime/kernels")
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-g0",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",
]

setup(
    ext_modules=[
        Extension(
            "vlmc.runtime.kernels.matmul24",
            sources=sorted(str(path) for path in FOLDER.glob("*.cpp")),
            depends=sorted(str(path) for path in FOLDER.glob("*.h")),
            language="c++",
            extra_compile_args=FLAGS,
            extra_link_args=["-Wl,--as-needed"] if sys.platform == "linux" else [],
            optional=True,
            py_limited_api=True,  # it knows nothing of Python: one file for every version
        )
    ]
)
