"""The word of a tiled interleaving: which layers of which stream run in turn."""

import math

from pretzel.errors import UserError


def check_word(word: str) -> None:
    """Raise a UserError if a word holds other letters, lacks one of the two, or begins with F."""
    if set(word) != {"V", "F"}:
        raise UserError(
            "word must hold V (a layer of the VLM) and F (a layer of the flow), both and nothing "
            f"else, for example 'VVF', got {word!r}"
        )
    if word[0] != "V":
        raise UserError(
            "word must begin with V, since the flow reads the text off the VLM's states, "
            f"got {word!r}"
        )


def flow_layers_after(word: str, num_vlm_layers: int) -> tuple[int, ...]:
    """Return how many layers of the flow follow each of the VLM, by which the word is repeated.

    Raises:
        UserError: If the layers of the VLM end within the word.
    """
    each = word.count("V")
    if num_vlm_layers % each:
        fitting = [v for v in range(1, num_vlm_layers + 1) if num_vlm_layers % v == 0]
        raise UserError(
            f"word {word!r} takes {each} layers of the VLM at a time, which must divide its "
            f"{num_vlm_layers}; numbers of V that fit: {fitting}"
        )
    flow_runs = word.split("V")[1:]  # the F behind each V
    return tuple(len(run) for run in flow_runs) * (num_vlm_layers // each)


def check_layers(word: str, num_vlm_layers: int, num_flow_layers: int) -> None:
    """Raise a UserError if a word does not use up the layers of both streams at once.

    It names the counts, and what would fit.
    """
    needed = sum(flow_layers_after(word, num_vlm_layers))
    if needed == num_flow_layers:
        return
    message = (
        f"word {word!r} over {num_vlm_layers} layers of the VLM must find {needed} in the deep "
        f"stream, got {num_flow_layers}; give it {needed}"
    )
    times = math.gcd(num_vlm_layers, num_flow_layers)
    if times:
        fitting = "V" * (num_vlm_layers // times) + "F" * (num_flow_layers // times)
        message += f", or write word {fitting!r}"
    raise UserError(message)
