"""The operator of ``decoding_layers.cpp``, built at first use where a C++ compiler is at hand."""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from pretzel.files.atomic import whole_file
from pretzel.files.cache_folder import cache_folder
from pretzel.typing import Tensor

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decoding_layers.cpp")

SECONDS: list[float] = []
"""What building the operator took, if this process did."""

_FLAGS = ["-shared", "-fPIC", "-std=c++20", "-O3", "-fopenmp-simd"]

_VECTORS = {
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw"],
}


def cxx() -> str:
    """Return the name of the C++ compiler, ``$CXX`` or the platform's."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


@cache
def decoding_operator() -> Callable[..., Tensor] | str:
    """Return the operator; why there is none, where it cannot be built.

    What is built is kept in the user's cache, by source, compiler, processor and version of torch.
    """
    flags = [*_FLAGS, *_VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])]
    words = [cxx(), *flags, SOURCE.read_text(), torch.__version__, platform.machine()]
    name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    library = cache_folder("decoding") / f"{name}.so"
    if not library.exists():
        if shutil.which(cxx()) is None:
            return f"there is no C++ compiler {cxx()}"
        start = time.monotonic()
        if failure := _build(flags, library):
            return failure
        SECONDS.append(time.monotonic() - start)
        logger.info("layers for sampling compiled in %.0f s, kept as %s", SECONDS[0], library)
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"{library} cannot be loaded ({error})"
    operator: Callable[..., Tensor] = torch.ops.pretzel.decoding_layers.default
    return operator


def _build(flags: list[str], library: Path) -> str | None:
    """Return why it failed; None if the library is there."""
    of_torch = Path(torch.__file__).parent
    paths = [f"-I{of_torch / 'include'}", f"-L{of_torch / 'lib'}", "-lc10", "-ltorch_cpu"]
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / library.name
        command = [cxx(), str(SOURCE), *flags, *paths, "-o", str(built)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            return f"{cxx()} failed ({errors[0] if errors else done.returncode})"
        try:
            with whole_file(library) as partial:
                shutil.copy(built, partial)
        except OSError as error:
            return f"{library} cannot be written ({error.strerror})"
    return None
