"""Latents of generated images: u by the deep stream, x by the shallow flow."""

from collections.abc import Sequence
from dataclasses import dataclass

from pretzel.generation.deep_inversion import generate_u
from pretzel.generation.state import GenerationState
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler, Sequential, Work
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.tarflow import TarFlow
from pretzel.typing import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class ImageLatents:
    """An image of each row, as a sequence keeps it: noised latents x, and u as both streams do.

    ``work`` counts what each block of the flow took, in the order of sampling; it is empty for an
    image that was given.
    """

    u: Float[Tensor, "b n d"]
    x: Float[Tensor, "b n d"]
    work: tuple[Work, ...] = ()

    def select(self, rows: Int[Tensor, " k"]) -> "ImageLatents":
        """Return those of the given rows."""
        return ImageLatents(u=self.u[rows], x=self.x[rows], work=self.work)


def generate_latents(
    state: GenerationState,
    z: Float[Tensor, "b n d"],
    guidance: Guidance,
    sampler: Sampler | None = None,
) -> ImageLatents:
    """Generate an image for each row and end it; arguments and errors as :func:`generate_u`.

    Of an image that is refused or interrupted nothing is left.
    """
    with state.transaction():
        deep = generate_u(state, z, guidance, sampler)
        shallow = invert_stack(state.model.shallow, deep.x, sampler or Sequential(), first=1)
        state.end_image(deep.x, shallow.x)
    return ImageLatents(u=deep.x, x=shallow.x, work=(*deep.work, *shallow.work))


def state_behind(model: Pretzel, prompts: Sequence[str]) -> GenerationState:
    """Return a state that has read a prompt in each row, long enough for one image behind it."""
    longest = max(len(model.vlm.encode_text(prompt)) for prompt in prompts)
    state = GenerationState(model, len(prompts), longest + 1 + model.latent.num_positions)
    state.read_text(prompts)
    return state


def sample_u(
    model: Pretzel,
    prompts: Sequence[str],
    z: Float[Tensor, "b n d"],
    guidance: Guidance,
    sampler: Sampler | None = None,
) -> Sampled:
    """Sample u of one image behind each prompt; arguments and errors as :func:`generate_u`."""
    return generate_u(state_behind(model, prompts), z, guidance, sampler)


def sample_latents(
    model: GenerativeModel,
    prompts: Sequence[str],
    z: Float[Tensor, "m n d"],
    guidance: Guidance,
    sampler: Sampler,
) -> Sampled:
    """Sample noised latents of one image for each prompt, from standard normal noise z."""
    if isinstance(model, TarFlow):
        return invert_stack(
            model.stack,
            z,
            sampler,
            context=model.condition(prompts),
            null_context=model.condition([None] * len(prompts)),
            guidance=guidance,
        )
    assert isinstance(model, Pretzel)
    # Nothing follows the image, so end-of-image is not run.
    deep = sample_u(model, prompts, z, guidance, sampler)
    shallow = invert_stack(model.shallow, deep.x, sampler, first=1)
    return Sampled(x=shallow.x, work=(*deep.work, *shallow.work))
