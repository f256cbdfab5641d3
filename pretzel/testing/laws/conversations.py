"""A conversation for the laws of generation: two images, two answers, rows of different lengths."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch

from pretzel.flow.conditioner import LayeredConditioner
from pretzel.generation.conversation_batch import ConversationBatch
from pretzel.generation.latents import ImageLatents
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import Writing
from pretzel.interleave.base import StreamCaches, StreamInputs, StreamOutputs
from pretzel.model import Pretzel, stream_inputs
from pretzel.sampling.guidance import GaussianMixing, Guidance, NoGuidance
from pretzel.sequence.document import Document, Image, Segment, Text
from pretzel.sequence.packed_batch import PackedBatch
from pretzel.sequence.packer import Packer
from pretzel.testing.laws.models import latents
from pretzel.typing import Float, Int, Tensor

FIRST = ("a red circle", "a very small blue triangle, perhaps", "")
THEN = (
    ("what color is the shape?", "why?", "is it a small circle?"),
    ("now make it blue", "again, please", ""),
    ("is it?", "what shape is it?", "what?"),
)
MAX_TOKENS = 3
WRITING = Writing(temperature=1.5, top_p=0.9)


@dataclass
class RecordedConversations:
    """Conversations, and what entered and left the streams, chunk by chunk, while they were held.

    Attributes:
        state: Their state, all committed.
        images: Latents of each image.
        parts: Tokens of a text of every row, or None for an image, in order.
    """

    state: GenerationState
    images: list[ImageLatents]
    parts: list[list[list[int]] | None] = field(default_factory=list)
    inputs: list[StreamInputs] = field(default_factory=list)
    outputs: list[StreamOutputs] = field(default_factory=list)


def guidance_for(model: Pretzel) -> Guidance:
    """Return guidance, where the model can be guided."""
    guided = model.reads_text and model.deep.transform.is_affine
    return GaussianMixing(weight=1.5, annealed=True) if guided else NoGuidance()


def converse(
    model: Pretzel, rows: Sequence[int] = (0, 1, 2), guidance: Guidance | None = None
) -> RecordedConversations:
    """Hold the conversation, or as much of it as the interleaving models, with some of the rows.

    Images are guided as :func:`guidance_for` says, where ``guidance`` does not.
    """
    conversations = ConversationBatch(
        model,
        [str(row) for row in rows],
        guidance=guidance or guidance_for(model),
        writing=WRITING,
        max_length=200 + 2 * model.latent.num_positions,
    )
    state = conversations.state
    recorded = RecordedConversations(state=state, images=conversations.latents)

    def say(texts: Sequence[str]) -> None:
        of_rows = [texts[row] for row in rows]
        conversations.say(of_rows)
        recorded.parts.append([model.vlm.encode_text(text) for text in of_rows])

    def generate(key: str) -> None:
        conversations.generate(latents(model, len(FIRST), key=key)[list(rows)])
        recorded.parts.append(None)

    def answer() -> None:
        conversations.answer(MAX_TOKENS)
        end = model.vlm.special.end_of_text
        texts = [row[-1] for row in conversations.segments]
        recorded.parts.append(
            [[*model.packer.token_ids(text), end] for text in texts if isinstance(text, Text)]
        )

    def record(module: object, args: tuple[Any, ...], outputs: StreamOutputs) -> None:
        recorded.inputs.append(args[0])
        recorded.outputs.append(outputs)

    with model.interleaving.register_forward_hook(record), torch.inference_mode():
        if model.reads_text:
            say(FIRST)
        generate("z0")
        if model.interleaving.answers:
            say(THEN[0])
            answer()
            say(THEN[1])
            generate("z1")
            say(THEN[2])
            answer()
            state.flush()
    return recorded


def recomputed(
    model: Pretzel, recorded: RecordedConversations, null_of: int | None = None
) -> tuple[PackedBatch, StreamOutputs]:
    """Return the sequences, packed anew, and their states from scratch, without caches.

    Of the image ``null_of`` it is the null branch: nothing is attended before it.
    """
    vlm, grid, n = model.vlm, model.latent.grid, model.latent.num_positions
    packer = Packer(
        lambda words: [int(word) for word in words.split()],
        vlm.special, grid, vlm.image_index(grid),
    )  # fmt: skip

    def segments(row: int) -> Iterator[Segment]:
        for part in recorded.parts:
            yield Image() if part is None else Text(content=" ".join(map(str, part[row])))

    rows = range(recorded.state.num_rows)
    packed = packer([Document(key="", segments=tuple(segments(row))) for row in rows])
    u = torch.stack([image.u for image in recorded.images], dim=1).flatten(0, 1)
    x = torch.stack([image.x for image in recorded.images], dim=1).flatten(0, 1)
    if null_of is not None:
        valid = packed.is_valid.clone()
        for row, begin in enumerate(begins_of_image(packed, n, null_of)):
            valid[row, :begin] = False
        packed = replace(packed, is_valid=valid)
    with torch.no_grad():
        inputs = replace(stream_inputs(packed, u, model.vision_features(u, x)), mask=packed.mask)
        outputs: StreamOutputs = model.interleaving(inputs, vlm, model.deep)
    return packed, outputs


def begins_of_image(packed: PackedBatch, num_positions: int, image: int) -> list[int]:
    """Return where begin-of-image of an image stands in each row."""
    return [int(row.nonzero()[image * num_positions]) - 1 for row in packed.is_image]


@dataclass
class Counts:
    """Numbers of columns that ran through the first layer of each stream.

    Attributes:
        deep: Of the deep stream; 0 where it has no layers of its own.
        vlm: Of the vision-language model.
        taken_back: Those that were taken out of the caches again, of each stream that ran them.
        index: Absolute indices that entered the vision-language model, chunk by chunk.
    """

    deep: int = 0
    vlm: int = 0
    taken_back: int = 0
    index: list[Int[Tensor, "r l"]] = field(default_factory=list)


@contextmanager
def counted(model: Pretzel) -> Iterator[Counts]:
    """Count the positions that the streams run over."""
    counts = Counts()
    conditioner = model.deep.conditioner
    layered = isinstance(conditioner, LayeredConditioner)
    name = "run" if layered else "forward"
    original = getattr(conditioner, name)

    def run(h: Float[Tensor, "r l w"], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        start = kwargs.get("start", args[0] if args else 0) if layered else 0
        counts.deep += h.shape[1] if start == 0 else 0
        return original(h, *args, **kwargs)

    def enters(module: object, args: tuple[Any, ...]) -> None:
        counts.vlm += args[0].shape[1]
        counts.index.append(args[1])

    def counting(caches: StreamCaches, num_positions: int) -> None:
        counts.taken_back += num_positions
        rewind(caches, num_positions)

    rewind = StreamCaches.rewind
    caches = patch.object(StreamCaches, "rewind", counting)
    deep = patch.object(conditioner, name, run)
    with caches, deep, model.vlm.register_forward_pre_hook(enters):
        yield counts
