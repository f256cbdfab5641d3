"""Text states of the frozen vision-language model, computed once, kept on disk by content.

Where an image stands behind its text and the model is only a text encoder (stage S1), its states
at text positions depend on nothing that trains: causality keeps the image out of them. So they are
read back, and the model is run on no image position at all.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch

from pretzel.errors import UserError
from pretzel.files.cache_folder import cache_folder
from pretzel.flow.deep import DeepStream
from pretzel.flow.sizes import check_sizes
from pretzel.interleave.base import Interleaving, StreamCaches, StreamInputs, StreamOutputs
from pretzel.interleave.skips import SkipConnection
from pretzel.interleave.stacked import Stacked
from pretzel.interleave.text_prefix import TextPrefix
from pretzel.interleave.unconditional import Unconditional
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel, stream_inputs
from pretzel.sequence.document import Document
from pretzel.training.text_states.store import KEY_BYTES, StateStore
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import VLMStream
from pretzel.vlm.replaced_forward import replaced_forwards

_INTERLEAVINGS = (Stacked, TextPrefix, Unconditional)  # which read last hidden states alone


class TextStates:
    """Serves a model in training with the states of the texts before its images.

    An option of training alone, which changes no loss by more than rounding: it is refused
    unless image positions of the vision-language model provably reach nothing (the skip from it is
    zero and does not train) and its text embeddings stay as they are. A batch with text that
    follows an image, and so depends on it, is run as without this option.

    States are found by the identity of the model, the token ids, their absolute positions, the
    type they were computed in and the embeddings of new tokens. Nothing is unpickled.

    Args:
        folder: Where they are kept; None for ``pretzel/text_states`` in the user's cache,
            ``$XDG_CACHE_HOME`` or ``~/.cache``.
        max_bytes: Most that is kept on disk for one vision-language model; the states of further
            texts are computed each time.
        shard_bytes: States that wait in memory until they are written; at most those of one shard
            are lost when the process is killed.

    Raises:
        UserError: If a size is not positive.
    """

    def __init__(
        self, folder: Path | None = None, max_bytes: int = 2**33, shard_bytes: int = 2**26
    ) -> None:
        check_sizes(max_bytes=max_bytes, shard_bytes=shard_bytes)
        self.folder = folder
        self.max_bytes = max_bytes
        self.shard_bytes = shard_bytes
        self.num_read = 0
        self.num_computed = 0
        self._store: StateStore | None = None
        self._salt = b""

    def check(self, model: GenerativeModel) -> None:
        """Raise a UserError if the flow of a model needs more of its VLM than text states."""
        if not isinstance(model, Pretzel):
            raise UserError(
                f"text_states needs a model with a VLM stream, got {type(model).__name__}"
            )
        if model.pack_length is not None:
            raise UserError(
                f"text_states needs one document a row (pack_length null), got pack_length "
                f"{model.pack_length}"
            )
        part = model.interleaving
        if type(part) not in _INTERLEAVINGS:
            names = ", ".join(kind.__name__ for kind in _INTERLEAVINGS)
            raise UserError(
                "text_states needs an interleaving that reads the last hidden states of the VLM "
                f"alone ({names}), got {type(part).__name__}"
            )
        if part.new_tokens is not None and part.new_tokens.embedding.requires_grad:
            raise UserError(
                "text_states needs embeddings of text that stay as they are, but "
                "interleaving.new_tokens trains"
            )
        if not isinstance(part, Stacked):
            return
        if any(p.requires_grad for p in part.adapter.parameters()):
            raise UserError(
                "text_states runs the VLM on no image position, so interleaving.adapter must not "
                "train, but it does"
            )
        if part.vlm_skip is not None and not _is_off(part.vlm_skip, model.vlm.hidden_size):
            raise UserError(
                "text_states runs the VLM on no image position, so interleaving.vlm_skip must be "
                "zero and must not train, but it "
                + ("trains" if _trains(part.vlm_skip) else "is not zero")
            )

    def start(self, model: GenerativeModel) -> None:
        """Check the model once more, with the weights it trains from, and open the folder."""
        self.check(model)
        assert isinstance(model, Pretzel)
        new = model.interleaving.new_tokens
        identity = hashlib.sha256(model.vlm.identity.encode())
        self._store = StateStore(
            (self.folder or default_folder()) / identity.hexdigest()[:16],
            self.max_bytes,
            self.shard_bytes,
        )
        if new is not None:
            embeddings = new.embedding.detach().cpu().contiguous().view(torch.uint8)
            identity.update(embeddings.numpy().tobytes())
        self._salt = identity.digest()

    def finish(self) -> None:
        """Write what has not been written."""
        if self._store is not None:
            self._store.flush()

    def fill(self, model: GenerativeModel, documents: Sequence[Document]) -> None:
        """Compute the states of the texts before the images of documents, where they are new."""
        assert isinstance(model, Pretzel)
        packed = model.pack(documents).to(model.device)
        texts = _texts(packed.tokens, packed.is_image, packed.index, model.vlm)
        part, dims = model.interleaving, model.latent.channels
        if texts is not None and part.reads_text:
            u = torch.zeros(int(packed.is_image.sum()), 1, dims, device=model.device)
            self._states(texts, part, stream_inputs(packed, u.to(model.dtype)), model.vlm)

    def serving(self, model: GenerativeModel) -> AbstractContextManager[None]:
        """Give the interleaving kept text states in the place of the VLM's, for whole sequences."""
        assert isinstance(model, Pretzel)
        assert self._store is not None, "start has not been called"
        part = model.interleaving
        return replaced_forwards({part: partial(self._serve, part, part.forward)})

    def _serve(
        self,
        part: Interleaving,
        forward: Callable[..., StreamOutputs],
        inputs: StreamInputs,
        vlm: VLMStream,
        deep: DeepStream,
        caches: StreamCaches | None = None,
    ) -> StreamOutputs:
        """Run an interleaving with known states in the place of the VLM's, where there are any."""
        if caches is not None or inputs.mask is not None or not part.reads_text:
            return forward(inputs, vlm, deep, caches)
        texts = _texts(inputs.tokens, inputs.is_image, inputs.index, vlm)
        if texts is None:
            return forward(inputs, vlm, deep)
        states = self._states(texts, part, inputs, vlm)

        def known(embeddings: Tensor, *args: object, **kwargs: object) -> Tensor:
            return states[:, : embeddings.shape[1]].to(embeddings.dtype)

        with replaced_forwards({vlm: known}):
            return forward(inputs, vlm, deep)

    def _states(
        self,
        texts: Sequence[tuple[list[int], list[int]]],
        module: Interleaving,
        inputs: StreamInputs,
        vlm: VLMStream,
    ) -> Float[Tensor, "b l h"]:
        """Return states of texts, zero behind them."""
        assert self._store is not None
        embeddings = module.embed(inputs.tokens[:1, :1], vlm)
        device = embeddings.device.type
        is_cast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_cast else embeddings.dtype
        keys = [self._key(tokens, index, dtype) for tokens, index in texts]
        states_by_key = {key: self._store.get(key) for key in keys}
        self.num_read += sum(states is not None for states in states_by_key.values())
        axes = inputs.positions.shape[-1] - 1
        for key, text in zip(keys, texts, strict=True):
            if states_by_key[key] is not None or not text[0]:
                continue
            # each by itself: what it is computed beside would show in its last digits, and a run
            # that is continued computes other texts together than one that was not interrupted
            tokens, index = (inputs.tokens.new_tensor([numbers]) for numbers in text)
            coordinates = inputs.positions.new_zeros(*tokens.shape, axes)
            with torch.no_grad():
                computed: Tensor = vlm(module.embed(tokens, vlm), index, coordinates=coordinates)
            states_by_key[key] = new = computed[0].cpu()
            self._store.put(key, new)
            self.num_computed += 1
        rows = [states_by_key[key] for key in keys]
        kind = next((states.dtype for states in rows if states is not None), dtype)
        dense = torch.zeros(*inputs.tokens.shape, vlm.hidden_size, dtype=kind)
        for row, states in zip(dense, rows, strict=True):
            if states is not None:
                row[: len(states)] = states
        return dense.to(embeddings.device)

    def _key(self, tokens: list[int], index: list[int], dtype: torch.dtype) -> bytes:
        text = f"{dtype} {tokens} {index}".encode()
        return hashlib.blake2b(text, digest_size=KEY_BYTES, key=self._salt).digest()


def default_folder() -> Path:
    """Return where states are kept if no folder is named."""
    return cache_folder("text_states")


def _texts(
    tokens: Int[Tensor, "b l"],
    is_image: Bool[Tensor, "b l"],
    index: Int[Tensor, "b l"],
    vlm: VLMStream,
) -> list[tuple[list[int], list[int]]] | None:
    """Return tokens and places of the text with which each row begins; None if text goes on."""
    # One transfer from the device in place of three
    columns = torch.stack([tokens, is_image.long(), index]).cpu()
    tokens, is_image, index = columns[0], columns[1].bool(), columns[2]
    lengths = prefix_lengths(tokens, is_image, vlm)
    if lengths is None:
        return None
    return [
        (tokens[row, :length].tolist(), index[row, :length].tolist())
        for row, length in enumerate(lengths)
    ]


def _trains(skip: SkipConnection) -> bool:
    return any(parameter.requires_grad for parameter in skip.parameters())


@torch.no_grad()
def _is_off(skip: SkipConnection, source: int) -> bool:
    """Tell whether a skip, a linear map of ``source`` channels, adds nothing and never will."""
    if _trains(skip):
        return False
    weight = next(skip.parameters())
    if weight.is_meta:
        return True
    basis = torch.eye(source, dtype=weight.dtype, device=weight.device)
    return not skip.contribution(basis[None]).any()


def prefix_lengths(
    tokens: Int[Tensor, "b l"], is_image: Bool[Tensor, "b l"], vlm: VLMStream
) -> list[int] | None:
    """Return how many text positions each row begins with; None if one goes on behind an image.

    Rows are padded on the right. End-of-image and padding do not count: nothing reads their states.
    """
    special = vlm.special
    is_filler = ~is_image & (tokens == special.pad)
    has_image = is_image.any(dim=1)
    columns = torch.arange(tokens.shape[1])
    end = torch.where(is_filler, 0, columns + 1).amax(dim=1)  # behind the last that is no padding
    first = torch.where(has_image, is_image.int().argmax(dim=1), end)
    inside = is_image.sum(dim=1)
    # text, one unbroken run of image positions, end-of-image
    behind = first + inside
    closing = tokens.gather(1, behind.clamp(max=tokens.shape[1] - 1)[:, None])[:, 0]
    is_closed = (end == behind) | ((end == behind + 1) & (closing == special.end_of_image))
    unbroken = torch.where(is_image, columns, -1).amax(dim=1) + 1 == behind
    if not (~has_image | (is_closed & unbroken)).all():
        return None
    return [int(n) for n in first]
