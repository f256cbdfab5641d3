"""Scenes as a source of data: nothing is on disk, every sample is a function of its number."""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from random import Random
from typing import Any, final

import PIL
from typing_extensions import override

from datamodules.checks import check_at_least
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.scenes.captions import write_caption
from datamodules.scenes.composing import ComposedScene, Composer
from datamodules.scenes.description import SKILLS, Skill
from datamodules.scenes.look import Look
from datamodules.scenes.placing import SIZES
from datamodules.scenes.questions import Questioner
from datamodules.scenes.scene import Scene
from datamodules.sources.source import DataSource, Split
from pretzel.errors import UserError

VERSION = 1
"""Version of what a number becomes: another one makes another world."""
SHARD_SIZE = 256
"""Samples of what is treated as a shard."""


@final
class Scenes(DataSource):
    """A drawn world: one to four objects on pale grounds, with captions, questions and the truth.

    A sample depends on ``seed``, its split and its number alone. Captions are of GenEval's six
    skills and dense ones, equally often; questions are of six types. Combinations of kinds, colours
    and numbers that are held out (:class:`datamodules.scenes.held_out.HeldOut`) do not occur in
    training; every other sample of validation and test has one of its skill. The ground truth of a
    sample is ``skill``, ``held_out`` (what is new in it, nothing in seen ones), ``objects`` and
    ``relations``.

    Args:
        look: Kinds and colours, and how they are drawn.
        size: Side of the pictures in pixels.
        max_objects: Most objects of a scene, from 1 to 4.
        skills: Skills of the captions; all that the look and ``max_objects`` allow if not given.
        soft_ground: Whether grounds fade softly from colour to colour; otherwise they are plain.
        num_train: Number of training samples; no picture is the same as another.
        num_val: Number of validation samples.
        num_test: Number of test samples.
        seed: Seed of the world; another one makes other scenes of the same kinds.

    Raises:
        UserError: If a number is out of its range, objects would be too small to be told apart, or
            a skill needs more objects, kinds or colours than there are.
    """

    def __init__(
        self,
        look: Look,
        size: int = 64,
        max_objects: int = 4,
        skills: list[Skill] | None = None,
        soft_ground: bool = True,
        num_train: int = 100_000,
        num_val: int = 1000,
        num_test: int = 2000,
        seed: int = 0,
    ) -> None:
        check_at_least(1, num_train=num_train, max_objects=max_objects)
        check_at_least(0, num_val=num_val, num_test=num_test)
        if max_objects > max(SIZES):
            raise UserError(f"max_objects must be at most {max(SIZES)}, not {max_objects}")
        smallest = SIZES[max_objects][0]
        if size * smallest < look.least_pixels:
            raise UserError(
                f"size must be at least {-int(-look.least_pixels // smallest)} pixels for "
                f"{max_objects} objects of {look.least_pixels} each, not {size}: raise size or "
                "lower max_objects"
            )
        self.look = look
        self.size = size
        self.max_objects = max_objects
        self.soft_ground = soft_ground
        self.seed = seed
        self._sizes: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self.composer = Composer(look, max_objects, soft_ground)
        self.skills = self._checked(skills)
        self._new_skills = [s for s in self.skills if self.composer.held_out.possible(s)]
        self._questioner = Questioner(look, self.composer.held_out, self.skills)

    def _checked(self, skills: Sequence[Skill] | None) -> tuple[Skill, ...]:
        if skills is None:
            return tuple(skill for skill in SKILLS if self.composer.can(skill))
        for skill in skills:
            if not self.composer.can(skill):
                raise UserError(
                    f"skills: {skill} needs more objects, kinds or colours than max_objects="
                    f"{self.max_objects}, {len(self.look.kinds)} kinds and "
                    f"{len(self.look.colours)} colours"
                )
        if not skills or len(set(skills)) < len(skills):
            raise UserError(f"skills must be some of {', '.join(SKILLS)}, none twice")
        return tuple(skills)

    @override
    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the names of what is treated as shards, of 256 samples each."""
        return tuple(
            f"scenes-{split}-{number:06d}" for number in range(-(-self._sizes[split] // SHARD_SIZE))
        )

    @override
    def num_samples(self, split: Split) -> int:
        return self._sizes[split]

    @override
    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        """Return a hash of all that each shard depends on."""
        look = {"class": type(self.look).__qualname__, "kinds": self.look.kinds}
        about = [look, dict(self.look.colours), self.look.turned, self.size, self.max_objects]
        about += [self.skills, self.soft_ground, self.seed, VERSION, PIL.__version__]
        texts = (json.dumps([*about, shard, len(self.numbers(shard)[1])]) for shard in shards)
        return tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)

    @override
    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        for number in self.numbers(shard)[1][first::step]:
            yield self._raw(shard, number, with_picture=True)

    @override
    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        numbers = self.numbers(shard)[1]
        return (self._raw(shard, number, with_picture=False) for number in numbers)

    @override
    def read_chosen(self, shard: str, keys: Collection[str]) -> Iterator[RawSample | Skipped]:
        split, numbers = self.numbers(shard)
        chosen = (number for number in numbers if _key(split, number) in keys)
        return (self._raw(shard, number, with_picture=True) for number in chosen)

    def scene(self, split: Split, number: int) -> ComposedScene:
        """Return a scene by its number in a split."""
        return self._scene(split, self._choices(split, number), number)

    def picture(self, scene: Scene) -> bytes:
        """Return the picture of a scene as a file, BMP: the fastest to write and to read."""
        file = io.BytesIO()
        self.look.render(scene, self.size).save(file, "BMP")
        return file.getvalue()

    def numbers(self, shard: str) -> tuple[Split, range]:
        """Return the split of a shard, and the numbers of its samples."""
        _, split, place = shard.split("-")
        begin = int(place) * SHARD_SIZE
        return split, range(begin, min(begin + SHARD_SIZE, self._sizes[split]))  # type: ignore[index, return-value]  # one of the three

    def _choices(self, split: Split, number: int) -> Random:
        return Random(f"scenes {self.seed} {split} {number}")

    def _scene(self, split: Split, choices: Random, number: int) -> ComposedScene:
        is_held_out = split != "train" and number % 2 == 1 and bool(self._new_skills)
        skill = choices.choice(self._new_skills if is_held_out else self.skills)
        return self.composer(skill, choices, is_held_out=is_held_out)

    def _raw(self, shard: str, number: int, *, with_picture: bool) -> RawSample:
        split, _ = self.numbers(shard)
        choices = self._choices(split, number)
        composed = self._scene(split, choices, number)
        members = {"json": json.dumps(self._about(composed, choices)).encode()}
        if with_picture:
            members = {"bmp": self.picture(composed.scene)} | members
        return RawSample(shard=shard, key=_key(split, number), members=members)

    def _about(self, composed: ComposedScene, choices: Random) -> dict[str, Any]:
        scene, description = composed.scene, composed.description
        content = [(one.kind, one.colour) for one in scene.objects]
        return {
            "caption": write_caption(description),
            "questions": [asdict(asked) for asked in self._questioner(scene, choices)],
            "skill": description.skill,
            "held_out": sorted(self.composer.held_out.axes(content)),
            "objects": [asdict(one) for one in scene.objects],
            "relations": [asdict(relation) for relation in description.relations],
        }


def _key(split: Split, number: int) -> str:
    return f"scenes_{split}_{number:07d}"
