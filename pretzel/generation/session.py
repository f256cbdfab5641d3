"""One left-to-right pass of generation over text and images, with the caches of both streams.

Nothing is ever run twice: a token or an image position enters both caches when it is read, drawn
or written, and switching between text and images only goes on from there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from pretzel.errors import UserError
from pretzel.generation.cached_rows import CachedRows
from pretzel.generation.drawing import StreamInversion
from pretzel.generation.rows import Block, text_block
from pretzel.generation.token_choice import GREEDY, Writing
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.model import Pretzel
from pretzel.rng import stream
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import check_guided
from pretzel.sampling.samplers import Sampler, Sequential, Work
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.sequence.document import Image, Text
from pretzel.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An image of each row.

    Attributes:
        u: Output of the shallow flow, as both streams hold it.
        x: Noised latents.
        work: Network evaluations of each block of the flow, in the order of sampling.
    """

    u: Float[Tensor, "b n d"]
    x: Float[Tensor, "b n d"]
    work: tuple[Work, ...]


class Session(CachedRows):
    """Sequences being generated, row by row in one batch.

    Text may differ in length from row to row: shorter rows are padded, and padding is neither
    attended nor counted. Images come in all rows at once. What has been read or written enters
    the caches no later than the next operation needs it, so that text, the end of an image and
    what follows go through the networks together.

    Args:
        model: The model.
        num_rows: Rows.
        room: Positions that fit into a row, padding included; the caches are allocated once.
        keys: Names of the rows: what is drawn at random for text depends on them and the seed,
            not on the rows beside it. None for their numbers.
        seed: Seed of the text.
    """

    def __init__(
        self,
        model: Pretzel,
        num_rows: int,
        room: int,
        *,
        keys: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, num_rows, room)
        self.keys = list(keys) if keys is not None else [str(i) for i in range(num_rows)]
        self.seed = seed

    # Reading

    def read(self, texts: Sequence[Sequence[Text]]) -> None:
        """Take in text of each row, of any lengths, none at all included.

        Text that the interleaving does not model, behind or before what it does, is left out, as
        in training.

        Raises:
            UserError: If there is no room.
        """
        assert not self.is_drawing
        assert len(texts) == self.num_rows
        if not any(texts):
            return
        segment = Text(content="")
        if not self._models(segment, Image()):
            return
        special = self.model.vlm.special
        rows = []
        for row in texts:
            tokens: list[tuple[int, bool]] = []
            for text in row:
                attended = text.role != "dropped"
                tokens += [(token, attended) for token in self.model.packer.token_ids(text)]
                if text.role == "target":
                    tokens.append((special.end_of_text, True))
            rows.append(tokens)
        block = text_block(rows, special.pad, self.model.device)
        columns = block.tokens.shape[1]
        self.rows.require_room(self._pending_columns + columns)
        self._segments.append(segment)
        if columns:
            self._queue(block)

    def read_text(self, texts: Sequence[str]) -> None:
        """Take in one text for each row; errors as in :meth:`read`."""
        self.read([[Text(content=text)] for text in texts])

    def read_image(
        self, u: Float[Tensor, "b n d"], x: Float[Tensor, "b n d"] | None = None
    ) -> None:
        """Take in a given image of each row, at once, with what is pending before it.

        Args:
            u: Output of the shallow flow.
            x: Noised latents; needed where the vision-language model is not shown u.

        Raises:
            UserError: If the interleaving models no image here, there is no room, or x is missing.
        """
        assert not self.is_drawing
        vision_input = self.model.interleaving.vision_input
        if x is None and vision_input is not None and not vision_input.is_causal:
            raise UserError(
                "x must be given where the vision-language model is not shown u, got None with "
                f"{type(vision_input).__name__}"
            )
        with self.undone_on_error():
            self._begin()
            end = self.rows.repeated(self.model.vlm.special.end_of_image)
            vision = None if x is None else self.model.vision_features(u, x)
            self._enter([Block.joined(self._pending), end], image=u, vision=vision)
            self._pending = []

    # Drawing

    def begin_image(self, guidance: Guidance) -> None:
        """Read up to begin-of-image; with guidance start the null branch there.

        The null branch has rows of its own behind the others. What stands before begin-of-image
        is not attended there, and keeps its absolute positions: the null context of caption
        dropout. Attention is tempered from begin-of-image on; of a model that reads text together
        with the image, in the text before as well.

        Args:
            guidance: How the branches are mixed.

        Raises:
            UserError: If the interleaving models no image here, or there is no room.
        """
        assert not self.is_drawing
        check_guided(self.model, guidance)
        self.rows.require_room(self._pending_columns + 1 + self.model.latent.num_positions)
        has_null_branch = guidance.has_null_branch(self.model.reads_text)
        is_tempered = has_null_branch and guidance.keeps_context and guidance.temperature != 1
        with self.undone_on_error():
            if is_tempered and self.model.interleaving.feeds_vlm:
                self.flush()
            self._begin()
            if has_null_branch:
                self._add_null_rows(guidance)
            self._commit()
        self.is_drawing = True

    def draw_u(
        self,
        z: Float[Tensor, "b n d"],
        guidance: Guidance,
        sampler: Sampler | None = None,
    ) -> Sampled:
        """Draw u of an image for each row, each position committed once; leave the image open.

        Args:
            z: Standard normal noise.
            guidance: How the branches are mixed.
            sampler: How positions are found; None for one after the other.

        Raises:
            UserError: If z has other rows, guidance cannot mix the transform, the interleaving
                models no image here, or there is no room.
        """
        if len(z) != self.num_rows:
            raise UserError(f"z must have {self.num_rows} rows, as the session has, got {len(z)}")
        with self.undone_on_error():
            self.begin_image(guidance)
            inversion = StreamInversion(self, z, guidance)
            work = (sampler or Sequential()).solve(inversion, 0)
            inversion.finish()
        return Sampled(x=inversion.branches.x, work=(work,))

    def draw(
        self,
        z: Float[Tensor, "b n d"],
        guidance: Guidance,
        sampler: Sampler | None = None,
    ) -> Drawn:
        """Draw an image for each row and end it; arguments and errors as in :meth:`draw_u`.

        Of an image that is refused or interrupted nothing is left.
        """
        with self.undone_on_error():
            deep = self.draw_u(z, guidance, sampler)
            shallow = invert_stack(self.model.shallow, deep.x, sampler or Sequential(), first=1)
            self.end_image(deep.x, shallow.x)
        return Drawn(u=deep.x, x=shallow.x, work=(*deep.work, *shallow.work))

    def end_image(self, u: Float[Tensor, "b n d"], x: Float[Tensor, "b n d"]) -> None:
        """Drop the null branch and force end-of-image.

        Where what the vision-language model is shown is known only now, it reads the image here.

        Args:
            u: Output of the shallow flow.
            x: Noised latents.
        """
        assert self.is_drawing
        assert self.caches is not None
        self.is_drawing = False
        self._drop_null_rows()
        vision = self.model.vision_features(u, x)
        if vision is not None:
            interleaving = self.model.interleaving
            assert isinstance(interleaving, VisionInterleaving)  # no other has a vision input
            inputs = self.rows.image_inputs(self.model, u, vision)
            interleaving.commit_image(inputs, self.model.vlm, self.caches)
        self._queue(self.rows.repeated(self.model.vlm.special.end_of_image))

    # Writing

    def write(
        self, max_tokens: int, writing: Writing = GREEDY, *, may_draw: bool = False
    ) -> Iterator[Int[Tensor, " b"]]:
        """Write text, a token for each row at a time.

        A row stops at end-of-text, or at begin-of-image where images may be drawn, which is left
        to :meth:`draw`; what follows there is padding. Nothing is run beyond the tokens asked for.

        Args:
            max_tokens: Tokens of a row at most, the one that ends it included.
            writing: How tokens are chosen.
            may_draw: Whether begin-of-image may be written.

        Yields:
            The next token of each row; end-of-text in rows that have stopped.

        Raises:
            UserError: If the interleaving predicts no text, nothing stands before that of a row,
                there is no room, or something else is read before the text has been written.
        """
        interleaving, vlm = self.model.interleaving, self.model.vlm
        require_answers(self.model)
        if max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, got {max_tokens}")
        self.flush()
        empty = (~self.rows.valid.any(dim=1)).nonzero()[:, 0].tolist()
        if empty:
            where = f" in row {empty[0]}" if self.num_rows > 1 else ""
            raise UserError(f"text must follow a text or an image, got nothing before it{where}")
        assert self.rows.text is not None
        special = vlm.special
        ruled_out = {special.pad, special.end_of_image} - {special.end_of_text}
        if not may_draw:
            ruled_out.add(special.begin_of_image)
        device = self.model.device
        excluded = torch.tensor(sorted(ruled_out), device=device)
        uniform = None if writing.is_greedy else self._uniform(max_tokens).to(device)
        self._segments.append(Text(content="", role="target"))
        turn = len(self._segments)
        done = torch.zeros(self.num_rows, dtype=torch.bool, device=device)
        for step in range(max_tokens):
            if len(self._segments) != turn:
                raise UserError("text must be written before anything is read behind it")
            self.flush()
            logits = interleaving.logits(self.rows.text, vlm)
            logits = logits.index_fill(-1, excluded, -torch.inf)
            token = writing.choose(logits, None if uniform is None else uniform[:, step])
            token = torch.where(done, special.end_of_text, token)
            begins = ~done & may_draw & (token == special.begin_of_image)
            # The image brings its own begin-of-image, in one column for all rows.
            kept = (~done & ~begins)[:, None]
            if kept.any():
                self._queue(Block(tokens=token[:, None], valid=kept, counts=kept))
            done = done | begins | (token == special.end_of_text)
            yield token
            if done.all():
                return

    def end_text(self, is_ended: Bool[Tensor, " b"]) -> None:
        """Force end-of-text in rows whose text has been cut."""
        if not is_ended.all():
            going = ~is_ended[:, None]
            tokens = torch.full_like(going, self.model.vlm.special.end_of_text, dtype=torch.long)
            self._queue(Block(tokens=tokens, valid=going, counts=going))

    def select(self, chosen: Int[Tensor, " k"], keys: Sequence[str] | None = None) -> "Session":
        """Return a session of the given rows (repeats allowed), so that a shared prefix runs once.

        Args:
            chosen: Rows.
            keys: Their names; None for their numbers.
        """
        assert not self.is_drawing
        new = Session(self.model, len(chosen), self.room, keys=keys, seed=self.seed)
        new._take(self, chosen)
        return new

    def _uniform(self, count: int) -> Float[Tensor, "b t"]:
        """Return random numbers that belong to the rows' names and the place in the sequence."""
        turn = len(self._segments)
        return torch.stack(
            [torch.rand(count, generator=stream(self.seed, "text", key, turn), dtype=torch.float64)
             for key in self.keys]
        )  # fmt: skip


def require_answers(model: Pretzel) -> None:
    """Refuse text of a model that writes none.

    Raises:
        UserError: Naming its interleaving.
    """
    if not model.interleaving.answers:
        raise UserError(
            "interleaving must be one that answers questions, got "
            f"{type(model.interleaving).__name__}"
        )
