"""Edits of scenes as a source of documents: image, instruction, image, instruction, image, ..."""

import hashlib
import json
from collections.abc import Iterator
from random import Random
from typing import Any, final

from typing_extensions import override

from datamodules.checks import check_at_least, check_probabilities
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.scenes.captions import describe_objects
from datamodules.scenes.chains import MAKES_NEW, EditChain, Editor
from datamodules.scenes.edits import EDIT_TYPES, EditType, write_truth
from datamodules.scenes.source import Scenes
from datamodules.sources.source import DataSource, Split
from pretzel.errors import UserError

VERSION = 1
"""Version of what a number becomes: another one makes other edits."""
_PLANS, _STARTS = 10, 40
"""Tries of kinds of edits, and of scenes to begin each with."""


@final
class SceneEdits(DataSource):
    """Chains of edits of scenes, as interleaved documents with the truth.

    A document is an image, an instruction, the image that it leads to, the next instruction, and so
    on, from one edit to ``max_edits``, all equally often; :class:`datamodules.AsWritten` trains on
    them. Edits change colour or kind of an object, add, remove or move one, swap two, or undo the
    edit before; what they do not name stays as it is, to the pixel. A document depends on the seed
    of ``scenes``, its split and its number alone. Held-out combinations are in no image of
    training; in every other document of validation and test the last edit brings one about. The
    ground truth is ``scenes`` (the objects at each image), ``edits`` (``edit_type``,
    ``instruction``, ``direction``, ``reference``, and by their numbers before it the
    ``untouched`` objects) and ``held_out``, what is new in the last image.

    Args:
        scenes: The world: its scenes are begun with, its numbers of samples are those of documents.
        edits: Kinds of edits; all that the world allows if not given.
        max_edits: Most edits of a document; 1 for pairs of images.
        captioned: Share of training documents that begin with the caption of their first image, as
            conversations do that begin from nothing.
        described: Share of training documents in which every instruction is followed by a
            description of the image it leads to, as a target: whoever predicts it has understood
            the instruction.

    Raises:
        UserError: If a number is out of its range, the world does not allow an edit, or there is
            none.
    """

    def __init__(
        self,
        scenes: Scenes,
        edits: list[EditType] | None = None,
        max_edits: int = 3,
        captioned: float = 0.0,
        described: float = 0.0,
    ) -> None:
        check_at_least(1, max_edits=max_edits)
        check_probabilities(captioned=captioned, described=described)
        self.scenes = scenes
        self.max_edits = max_edits
        self.captioned = captioned
        self.described = described
        look = scenes.look
        self._editor = Editor(look, scenes.composer.held_out, scenes.max_objects)
        known = [one for one in EDIT_TYPES if self._editor.can(one)]
        if max_edits == 1:
            known.remove("undo")
        for one in edits or ():
            if one not in known:
                raise UserError(
                    f"edits: {one} needs more objects, kinds, colours or edits than max_objects="
                    f"{scenes.max_objects}, {len(look.kinds)} kinds, {len(look.colours)} colours "
                    f"and max_edits={max_edits}"
                )
        self.edits = tuple(known if edits is None else edits)
        self._first_edits = [one for one in self.edits if one != "undo"]
        if not self._first_edits or len(set(self.edits)) < len(self.edits):
            raise UserError(
                f"edits must be some of {', '.join(EDIT_TYPES)}, none twice, not undo alone, got "
                f"{list(self.edits)}"
            )
        has_new = any(scenes.composer.held_out.possible(skill) for skill in scenes.skills)
        self._new_edits = [one for one in self.edits if one in MAKES_NEW and has_new]
        self.chain("train", 0)  # what cannot be made is said now
        self.chain("test", 1)

    @override
    def shards(self, split: Split) -> tuple[str, ...]:
        return self.scenes.shards(split)

    @override
    def num_samples(self, split: Split) -> int:
        return self.scenes.num_samples(split)

    @override
    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        """Return a hash of all that each shard depends on."""
        own = [self.edits, self.max_edits, self.captioned, self.described, VERSION]
        texts = (json.dumps([own, scenes]) for scenes in self.scenes.identities(shards))
        return tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)

    @override
    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        for number in self.scenes.numbers(shard)[1][first::step]:
            yield self._raw(shard, number, with_pictures=True)

    @override
    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        numbers = self.scenes.numbers(shard)[1]
        return (self._raw(shard, number, with_pictures=False) for number in numbers)

    def chain(self, split: Split, number: int) -> EditChain:
        """Return scenes and edits of a document by its number in a split.

        Raises:
            UserError: If no chain can be made of these scenes.
        """
        choices = Random(f"scene edits {self.scenes.seed} {split} {number}")
        is_held_out = split != "train" and number % 2 == 1 and bool(self._new_edits)
        for _ in range(_PLANS):
            types = self._plan(choices, is_held_out=is_held_out)
            for _ in range(_STARTS):
                skill = choices.choice(self.scenes.skills)
                start = self.scenes.composer(skill, choices, is_held_out=False)
                chain = self._editor(start, types, choices, is_held_out=is_held_out)
                if chain is not None:
                    return chain
        raise UserError(
            f"edits: no chain of {', '.join(self.edits)} can be made of scenes of "
            f"{', '.join(self.scenes.skills)}: give more edits, skills, kinds or colours"
        )

    def _plan(self, choices: Random, *, is_held_out: bool) -> list[EditType]:
        types: list[EditType] = [choices.choice(self._first_edits)]
        for _ in range(choices.randrange(self.max_edits)):
            # what undoing an undoing means is in doubt
            types.append(choices.choice(self._first_edits if types[-1] == "undo" else self.edits))
        if is_held_out:
            types[-1] = choices.choice(self._new_edits)
        return types

    def _chosen(self, what: str, share: float, split: Split, number: int) -> bool:
        """Tell whether a training document is one of a share of them."""
        chance = Random(f"{what} {self.scenes.seed} {number}").random()
        return split == "train" and chance < share

    def _raw(self, shard: str, number: int, *, with_pictures: bool) -> RawSample:
        split, _ = self.scenes.numbers(shard)
        chain = self.chain(split, number)
        last = [(one.kind, one.colour) for one in chain.scenes[-1].objects]
        segments: list[dict[str, Any]] = [{"image": "0.bmp"}]
        if self._chosen("captioned", self.captioned, split, number):
            segments.insert(0, {"text": chain.caption})
        is_described = self._chosen("described", self.described, split, number)
        for place, edit in enumerate(chain.edits, 1):
            segments.append({"text": edit.instruction})
            if is_described:
                text = describe_objects(chain.scenes[place].objects)
                segments.append({"text": text, "role": "target"})
            segments.append({"image": f"{place}.bmp"})
        about = {
            "segments": segments,
            **write_truth([scene.objects for scene in chain.scenes], chain.edits),
            "held_out": sorted(self.scenes.composer.held_out.axes(last)),
        }
        members = {"json": json.dumps(about).encode()}
        for place, scene in enumerate(chain.scenes if with_pictures else ()):
            members[f"{place}.bmp"] = self.scenes.picture(scene)
        return RawSample(shard=shard, key=f"edits_{split}_{number:07d}", members=members)
