"""The one thing that setup.cfg cannot say: the compiled reader, which is optional.

Without a compiler the package installs and works all the same, with torch's own operations.
"""

import sys

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "lightning_gradwatch.native._native",
            ["lightning_gradwatch/native/_native.c"],
            depends=[
                f"lightning_gradwatch/native/{name}.h"
                for name in (
                    "dlpack",
                    "kernels",
                    "looks",
                    "outputs",
                    "tensors",
                    "updates",
                    "weights",
                )
            ],
            extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-fopenmp-simd"],
            optional=True,
        )
    ]
)
