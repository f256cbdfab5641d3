"""The state of a generation: sequences of text and images, and the caches of both streams.

Nothing is ever run twice: a token or an image position enters both caches when it is read,
generated or written, and switching between text and images only goes on from there.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from pretzel.errors import UserError
from pretzel.flow.cache import KVCache
from pretzel.generation.chunks import (
    OpenImage,
    TextColumns,
    causal_mask,
    image_inputs,
    last_valid,
    side_by_side,
    text_inputs,
)
from pretzel.interleave.base import StreamCaches, StreamInputs, StreamOutputs
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.model import Pretzel
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import check_guided
from pretzel.sequence.document import Document, Image, Segment, Text
from pretzel.typing import Bool, Float, Int, Tensor


class GenerationState:
    """Sequences being generated, one per batch row, with the key-value caches of both streams.

    Text may differ in length from row to row: shorter rows are padded, and padding is neither
    attended nor counted. Images come in all rows at once. Text waits until the next operation
    needs it, so that text, the end of an image and what follows go through the networks together.

    While a guided image is being generated, the rows of its null branch stand behind the others:
    all that has an axis of rows then has twice as many.

    Attributes:
        num_rows: Sequences.
        max_length: Positions that fit into a row, padding included; the caches are allocated once.
        length: Columns committed to the caches so far, the same in every row.
        valid: Which columns are attended.
        next_index: Absolute index of each row's next position.
        place: Place of that position on the text axis, where an image takes one place.
        deep_state: State of the deep stream at each row's last position.
        text_state: Input of the language head there; None before any text has been run.
        caches: Of both streams; None before anything has entered them.
        pending: Text that has not been run yet.
        segments: Texts and images of the sequences so far, in order, without their contents.
    """

    def __init__(self, model: Pretzel, num_rows: int, max_length: int) -> None:
        device = model.device
        self.model = model
        self.num_rows = num_rows
        self.max_length = max_length
        self.length = 0
        self.valid: Bool[Tensor, "r max_length"] = torch.zeros(
            num_rows, max_length, dtype=torch.bool, device=device
        )
        self.next_index: Int[Tensor, " r"] = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.place: Int[Tensor, " r"] = torch.zeros_like(self.next_index)
        self.deep_state: Float[Tensor, "r w"] = torch.zeros(
            num_rows, model.deep.width, device=device, dtype=model.dtype
        )
        self.text_state: Float[Tensor, "r h"] | None = None
        self.caches: StreamCaches | None = None
        self.pending: list[TextColumns] = []
        self.segments: list[Segment] = []
        self._temperature: Float[Tensor, " r"] | None = None
        self._image: OpenImage | None = None

    @property
    def is_in_image(self) -> bool:
        """Whether an image has been begun and not ended."""
        return self._image is not None

    @property
    def has_null_rows(self) -> bool:
        """Whether the rows of a null branch stand behind the others."""
        return len(self.valid) > self.num_rows

    @contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[None]:
        """Leave everything as it was if what is done within does not come to its end.

        Args:
            keep: Whether anything is kept if it does.
        """
        before = vars(self) | {
            "valid": self.valid.clone(),  # the only tensor that is written in place
            "pending": list(self.pending),
            "segments": list(self.segments),
        }
        is_kept = False
        try:
            yield
            is_kept = keep
        finally:
            if not is_kept:
                vars(self).update(before)
                if self.caches is not None:
                    self.caches.rewind(self.caches.deep.length - self.length)

    def select(self, rows: Int[Tensor, " k"]) -> "GenerationState":
        """Return a state of the given rows (repeats allowed), so that a shared prefix runs once."""
        assert not self.is_in_image
        selected = copy.copy(self)
        selected.num_rows = len(rows)
        selected.segments = list(self.segments)
        selected._keep(rows)
        return selected

    def _keep(self, rows: Int[Tensor, " k"]) -> None:
        """Go on with the given rows, repeats allowed; nothing is written into what was before."""
        self.valid = self.valid[rows]
        self.next_index, self.place = self.next_index[rows], self.place[rows]
        self.deep_state = self.deep_state[rows]
        self.text_state = None if self.text_state is None else self.text_state[rows]
        self.caches = None if self.caches is None else self.caches.select(rows)
        self.pending = [block.select(rows) for block in self.pending]

    # Reading

    def read_text(self, texts: Sequence[str]) -> None:
        """Take in a text of each row, of any lengths, none at all included.

        Text that the interleaving does not model, behind or before what it does, is left out, as
        in training.

        Raises:
            UserError: If it does not fit.
        """
        self.read_tokens([self.model.vlm.encode_text(text) for text in texts])

    def read_tokens(self, rows: Sequence[Sequence[int]]) -> None:
        """Take in a text of each row, given by its tokens, as :meth:`read_text` does."""
        assert not self.is_in_image
        assert len(rows) == self.num_rows
        segment = Text(content="")
        if not self._models(segment, Image()):
            return
        block = TextColumns.padded(rows, self.model.vlm.special.pad, self.valid.device)
        columns = block.tokens.shape[1]
        self._require_fit(self._pending_columns + columns)
        self.segments.append(segment)
        if columns:
            self.pending.append(block)

    def read_image(
        self, u: Float[Tensor, "b n d"], x: Float[Tensor, "b n d"] | None = None
    ) -> None:
        """Take in a given image of each row, at once, with the text that is pending before it.

        It is given by the output u of the shallow flow and by its noised latents x, which are
        needed where the vision-language model is not shown u.

        Raises:
            UserError: If the interleaving models no image here, it does not fit, or x is missing.
        """
        assert not self.is_in_image
        vision_input = self.model.interleaving.vision_input
        if x is None and vision_input is not None and not vision_input.is_causal:
            raise UserError(
                "x must be given where the vision-language model is not shown u, got None with "
                f"{type(vision_input).__name__}"
            )
        with self.transaction():
            self._append_begin_of_image()
            end = self._everywhere(self.model.vlm.special.end_of_image)
            vision = None if x is None else self.model.vision_features(u, x)
            self._run([TextColumns.joined(self.pending), end], u, vision)
            self.pending = []

    def flush(self) -> None:
        """Run the text that is pending, and commit it.

        Raises:
            UserError: If text is not run without the image behind it, or it does not fit.
        """
        if not self.pending:
            return
        if not self.model.interleaving.feeds_vlm:
            raise UserError(
                f"{type(self.model.interleaving).__name__} reads text together with the image "
                "behind it: it must not be flushed before"
            )
        self._run_pending()

    # Writing text

    def begin_text(self) -> int:
        """Begin a text that is to be written; return its number among the segments.

        Raises:
            UserError: If nothing stands before the text of a row, or what does not fit.
        """
        self.flush()
        empty = (~self.valid.any(dim=1)).nonzero()[:, 0].tolist()
        if empty:
            where = f" in row {empty[0]}" if self.num_rows > 1 else ""
            raise UserError(f"text must follow a text or an image, got nothing before it{where}")
        self.segments.append(Text(content="", role="target"))
        return len(self.segments) - 1

    def next_logits(self) -> Float[Tensor, "b v"]:
        """Return the logits of each row's next token."""
        self.flush()
        assert self.text_state is not None
        return self.model.interleaving.logits(self.text_state, self.model.vlm)

    def text_log_prob(self, tokens: Sequence[int]) -> Float[Tensor, " b"]:
        """Return the log-probability of the same next tokens, at least one, behind each row.

        In nats, of all tokens of the vocabulary, as in training. Nothing is kept: the sequences are
        as they were.

        Raises:
            UserError: If they do not fit.
        """
        logits = [self.next_logits()]
        *run, _ = columns = logits[0].new_tensor(tokens, dtype=torch.long)
        if run:
            with self.transaction(keep=False):
                block = torch.stack(run).expand(self.num_rows, -1)
                is_there = torch.ones_like(block, dtype=torch.bool)
                text = self._run([TextColumns(tokens=block, valid=is_there, counts=is_there)]).text
            assert text is not None
            logits += [
                self.model.interleaving.logits(states, self.model.vlm) for states in text.unbind(1)
            ]
        at_least_single = torch.promote_types(logits[0].dtype, torch.float32)
        log_probs = [
            of.log_softmax(dim=-1, dtype=at_least_single)[:, token]
            for of, token in zip(logits, columns, strict=True)
        ]
        return torch.stack(log_probs).sum(dim=0)

    def append_tokens(self, tokens: Int[Tensor, " b"], is_there: Bool[Tensor, " b"]) -> None:
        """Append a token to the rows where it is there, padding to the others."""
        if is_there.any():
            column = is_there[:, None]
            self.pending.append(TextColumns(tokens=tokens[:, None], valid=column, counts=column))

    # Generating an image

    def begin_image(self, guidance: Guidance) -> None:
        """Read up to begin-of-image; with guidance start the null branch there.

        What stands before begin-of-image is not attended in the null branch, and keeps its
        absolute positions: the null context of caption dropout. Attention is tempered from
        begin-of-image on; of a model that reads text together with the image, in the text before
        as well.

        Raises:
            UserError: If the interleaving models no image here, or it does not fit.
        """
        assert not self.is_in_image
        check_guided(self.model, guidance)
        n = self.model.latent.num_positions
        self._require_fit(self._pending_columns + 1 + n)
        has_null_branch = guidance.has_null_branch(self.model.reads_text)
        is_tempered = has_null_branch and guidance.keeps_context and guidance.temperature != 1
        with self.transaction():
            if is_tempered and self.model.interleaving.feeds_vlm:
                self.flush()
            self._append_begin_of_image()
            if has_null_branch:
                self._add_null_rows(guidance)
            self._run_pending()
            self.valid[:, self.length : self.length + n] = True
            self._image = OpenImage.behind(self.model, self.length, self.next_index, self.place)

    def run_image(self, u: Float[Tensor, "r k d"], start: int) -> Float[Tensor, "r k w"]:
        """Run the streams over u_start .. u_{start+k-1} and commit them; return the deep states.

        They count as generated only when the image is complete.
        """
        assert self._image is not None
        return self._streams(self._image.chunk(u, start, self.valid)).deep

    def complete_image(self, last: Float[Tensor, "r 1 d"]) -> None:
        """Commit u of the last position, so that both caches hold the whole image."""
        n = self.model.latent.num_positions
        self.deep_state = self.run_image(last, n - 1)[:, -1]
        self.length += n
        self.next_index = self.next_index + self.model.packer.index_length
        self.place = self.place + 1

    def end_image(self, u: Float[Tensor, "b n d"], x: Float[Tensor, "b n d"]) -> None:
        """Drop the null branch and force end-of-image behind u, whose noised latents are x.

        Where what the vision-language model is shown is known only now, it reads the image here.
        """
        assert self._image is not None
        assert self.caches is not None
        if self.has_null_rows:
            self._keep(torch.arange(self.num_rows, device=self.valid.device))
            self._temperature = None
        vision = self.model.vision_features(u, x)
        if vision is not None:
            interleaving = self.model.interleaving
            assert isinstance(interleaving, VisionInterleaving)  # no other has a vision input
            inputs = replace(self._image.chunk(u, 0, self.valid), vision=vision)
            interleaving.commit_image(inputs, self.model.vlm, self.caches)
        self._image = None
        self.pending.append(self._everywhere(self.model.vlm.special.end_of_image))

    def _add_null_rows(self, guidance: Guidance) -> None:
        b = self.num_rows
        self.pending = [TextColumns.joined(self.pending)]
        self._keep(torch.arange(b, device=self.valid.device).repeat(2))
        if not guidance.keeps_context and self.model.reads_text:
            self.valid[b:] = False
            self.pending[0].valid[b:, :-1] = False  # all but begin-of-image
        if guidance.temperature == 1:
            return
        self._temperature = self.deep_state.new_ones(2 * b)
        self._temperature[b:] = guidance.temperature
        if self.caches is not None:
            deep = self.caches.deep
            if not isinstance(deep, KVCache) or not len(deep.entries):
                raise UserError(
                    f"{type(guidance).__name__} needs attention in the deep stream to change "
                    f"its temperature behind a prefix, got {type(deep).__name__}"
                )
            deep.set_temperature(self._temperature)

    # Parts

    def _models(self, *segments: Segment) -> bool:
        """Return whether the interleaving models such segments behind those so far."""
        document = Document(key="", segments=(*self.segments, *segments))
        return len(self.model.interleaving.view(document).segments) == len(document.segments)

    def _append_begin_of_image(self) -> None:
        if not self._models(Image()):
            raise UserError(
                f"{type(self.model.interleaving).__name__} models no image behind an image: begin "
                "another sequence"
            )
        self.segments.append(Image())
        self.pending.append(self._everywhere(self.model.vlm.special.begin_of_image))

    def _everywhere(self, token: int) -> TextColumns:
        """Return one token in every row."""
        column = self.valid.new_ones(len(self.valid), 1)
        tokens = torch.full_like(column, token, dtype=torch.long)
        return TextColumns(tokens=tokens, valid=column, counts=column)

    @property
    def _pending_columns(self) -> int:
        return sum(block.tokens.shape[1] for block in self.pending)

    def _require_fit(self, columns: int) -> None:
        if self.length + columns > self.max_length:
            raise UserError(
                f"the sequence must fit into max_length of its caches, {self.max_length} "
                f"positions, got {self.length} + {columns}"
            )

    # Running the streams

    def _run_pending(self) -> None:
        with self.transaction():
            self._run([TextColumns.joined(self.pending)])
            self.pending = []

    def _run(
        self,
        blocks: Sequence[TextColumns],
        u: Float[Tensor, "b n d"] | None = None,
        vision: Float[Tensor, "b n s"] | None = None,
    ) -> StreamOutputs:
        """Run a block of text, or one, an image and another, and commit it; return its states."""
        index, place = self.next_index, self.place
        parts: list[StreamInputs] = []
        valid: list[Tensor] = []
        for number, block in enumerate(blocks):
            if number and u is not None:
                image = image_inputs(self.model, index, place)
                parts.append(replace(image, u=u.to(image.u.dtype), vision=vision))
                valid.append(parts[-1].is_image)
                index, place = index + self.model.packer.index_length, place + 1
            parts.append(text_inputs(self.model, block, index, place, vision))
            valid.append(block.valid)
            count = block.counts.sum(dim=1)
            index, place = index + count, place + count
        attended = torch.cat(valid, dim=1)
        columns = attended.shape[1]
        self._require_fit(columns)
        self.valid[:, self.length : self.length + columns] = attended
        streams = self._streams(
            replace(side_by_side(parts), mask=causal_mask(self.valid, self.length, columns))
        )
        self.length += columns
        self.next_index, self.place = index, place
        self.deep_state = last_valid(streams.deep, attended, self.deep_state)
        if streams.text is not None:
            self.text_state = last_valid(streams.text, attended, self.text_state)
        return streams

    def _streams(self, inputs: StreamInputs) -> StreamOutputs:
        model = self.model
        if self.caches is None:
            self.caches = model.interleaving.new_caches(
                model.vlm, model.deep, len(self.valid), self.max_length, self._temperature
            )
        outputs: StreamOutputs = model.interleaving(inputs, model.vlm, model.deep, self.caches)
        return outputs
