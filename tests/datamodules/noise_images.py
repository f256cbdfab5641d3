"""Pictures of noise, all different."""

import io

import numpy as np
from PIL import Image


def noise_png(rng, size=16):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
