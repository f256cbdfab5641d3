"""How the block stands trial under ``pytest --laws pretzel_causal_conv``."""

from functools import partial

from pretzel.flow import AffineSoftplus, FixedRandom, Flip

from pretzel_causal_conv import CausalConvBlock


def pytest_law_cases():
    block = partial(CausalConvBlock, transform=AffineSoftplus(), width=8)
    return {
        CausalConvBlock: [
            partial(block, 3, (2, 3), 1, Flip()),
            partial(block, 2, (3, 3), 2, FixedRandom(seed=1), kernel_size=2),
        ]
    }
