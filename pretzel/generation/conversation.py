"""A conversation of text and images with one model, in one sequence.

Example::

    batch = ConversationBatch(model, ["a name"], guidance=GaussianMixing(weight=2.0))
    conversation = Conversation(batch)
    conversation.say("a red circle")
    picture = conversation.generate()
    conversation.say("what shape is it?")
    print(conversation.answer())
    conversation.say("a blue circle")
    picture = conversation.generate()
"""

import copy
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import torch

from pretzel.generation.conversation_batch import MAX_TOKENS, ConversationBatch
from pretzel.generation.turn import Turn
from pretzel.sampling.samplers import Work
from pretzel.typing import Int, Tensor

Piece = TypeVar("Piece")


class Conversation:
    """One sequence of text and images: what is said and shown, generated and answered.

    The case of one row of :class:`.ConversationBatch`, with pictures instead of tensors, and text
    that can be read while it is being written. A text that is still being streamed is ended before
    whatever is asked for next.

    Args:
        batch: A batch of one conversation that has not begun.

    Attributes:
        turns: What has been said, shown, generated and answered so far.
    """

    def __init__(self, batch: ConversationBatch) -> None:
        self.batch = batch
        self.turns: list[Turn] = []
        self._text_in_progress: Generator[object, None, object] | None = None

    @property
    def work(self) -> list[tuple[Work, ...]]:
        """Network evaluations of each generated image, by blocks of the flow."""
        return [latents.work for latents in self.batch.latents if latents.work]

    def fork(self, key: str | None = None) -> "Conversation":
        """Return a conversation that goes on from here by itself; nothing is read again.

        Args:
            key: Its name; None for that of this one.
        """
        self._end_text_in_progress()
        other = copy.copy(self)
        first = torch.zeros(1, dtype=torch.long, device=self.batch.model.device)
        other.batch = self.batch.select(first, self.batch.keys if key is None else [key])
        other.turns = list(self.turns)
        return other

    def say(self, text: str) -> None:
        """Add a text, which is read by whatever comes next.

        Raises:
            UserError: If it does not fit.
        """
        self._end_text_in_progress()
        self.batch.say([text])
        self.turns.append(Turn(kind="say", text=text))

    def show(self, picture: Any) -> None:  # noqa: ANN401
        """Add a given picture, cropped and resized as in training, or another medium's object.

        Its noise is that of training, named by the conversation.

        Raises:
            UserError: If the interleaving models no image here.
        """
        model = self.batch.model
        pixels = model.latent.medium.tensors([picture]).to(model.device, model.dtype)
        self._end_text_in_progress()
        self.batch.show(pixels)
        self.turns.append(Turn(kind="image", picture=picture))

    def generate(self) -> Any:  # noqa: ANN401
        """Generate a picture, or an object of the model's medium, that follows from all before.

        Raises:
            UserError: If the interleaving models no image here, or it does not fit.
        """
        self._end_text_in_progress()
        return self._generate()

    def _generate(self) -> Any:  # noqa: ANN401
        (picture,) = self.batch.model.latent.medium.outputs(self.batch.generate())
        self.turns.append(Turn(kind="generate", picture=picture))
        return picture

    def answer(self, max_tokens: int = MAX_TOKENS) -> str:
        """Write a text that follows from all before, and return it whole.

        Args:
            max_tokens: A text that has not ended by then is cut and ended.

        Raises:
            UserError: If the model writes no text, nothing stands before it, it does not fit, or
                no tokens are asked for.
        """
        for _ in self.stream(max_tokens):
            pass
        return self.turns[-1].text

    def stream(self, max_tokens: int = MAX_TOKENS) -> Iterator[str]:
        """Write a text, piece by piece as its tokens come; as :meth:`answer` otherwise.

        A text that is not asked for to its end is ended where it is.
        """
        return self._alone(self._stream(max_tokens, may_begin_image=False))

    def continue_freely(self, max_tokens: int = MAX_TOKENS, max_images: int = 1) -> Iterator[Any]:
        """Go on until the model ends its text, with images where it begins them.

        Args:
            max_tokens: Tokens in all.
            max_images: Images in all; then no more can be begun.

        Yields:
            Pieces of text and whole pictures.

        Raises:
            UserError: As for :meth:`answer`.
        """
        return self._alone(self._continue(max_tokens, max_images))

    def _continue(self, max_tokens: int, max_images: int) -> Generator[Any, None, None]:
        while True:
            count, begins = yield from self._stream(max_tokens, may_begin_image=max_images > 0)
            if not begins:
                return
            yield self._generate()
            max_tokens -= count
            max_images -= 1
            if max_tokens < 1:
                return

    def _alone(self, pieces: Generator[Piece, None, object]) -> Iterator[Piece]:
        self._end_text_in_progress()
        self._text_in_progress = pieces
        yield from pieces

    def _end_text_in_progress(self) -> None:
        if self._text_in_progress is not None:
            self._text_in_progress.close()
            self._text_in_progress = None

    def _stream(
        self, max_tokens: int, *, may_begin_image: bool
    ) -> Generator[str, None, tuple[int, bool]]:
        """Write a text; return its tokens' number, and whether begin-of-image ended it."""
        vlm = self.batch.model.vlm
        special = vlm.special
        writer = self.batch.write(max_tokens, may_begin_image=may_begin_image)
        tokens: list[Int[Tensor, " 1"]] = []
        words: list[int] = []
        streamed = ""
        begins = False
        try:
            while True:
                # Not around the yield: it would reach into the code of whoever reads this.
                with torch.inference_mode():
                    token = next(writer, None)
                if token is None:
                    break
                tokens.append(token)
                begins = may_begin_image and int(token) == special.begin_of_image
                if begins or int(token) == special.end_of_text:
                    continue
                words.append(int(token))
                text = vlm.decode_text(words)
                # Half a character, or a word that is respelt, waits for what follows.
                if text.startswith(streamed) and not text.endswith("\ufffd") and text != streamed:
                    piece, streamed = text[len(streamed) :], text
                    yield piece
        finally:
            if tokens:
                (text,) = self.batch.end_text(torch.stack(tokens, dim=1))
                if text or not may_begin_image:
                    self.turns.append(Turn(kind="answer", text=text))
        if text != streamed and text.startswith(streamed):
            yield text[len(streamed) :]
        return len(tokens), begins
