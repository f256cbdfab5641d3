"""Shape types and the letters that shapes are written with.

Axis letters, the same in every signature of the project:

====  ==========================================================
b     rows of a batch (documents)
m     images of a batch (a row may have none, one or several)
l     positions of a packed sequence, text and image alike
n     positions of one image (the product of its latent grid)
d     channels of one latent position
p     raw transform parameters of one latent position
w     width of the deep or shallow transformers
h     hidden size of the vision-language model
v     vocabulary size
a     axes of a position: one for text, then those of the grid
====  ==========================================================
"""

from jaxtyping import Bool, Complex, Float, Int, Shaped
from torch import Tensor

__all__ = ["Bool", "Complex", "Float", "Int", "Shaped", "Tensor"]
