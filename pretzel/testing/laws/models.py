"""The laws of interleavings, tested in a model: likelihood, causality, training."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from pretzel.interleave.base import StreamInputs, StreamOutputs
from pretzel.latent.generative_model import Scores
from pretzel.model import Pretzel, stream_inputs
from pretzel.sequence.document import Document, Image, Text
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within, worst, worst_of
from pretzel.testing.global_state import seeded, untouched
from pretzel.testing.gradients import check_gradients, jacobian
from pretzel.testing.law_case import (
    FP32,
    FP64,
    PERTURBED,
    PERTURBED_EVAL,
    Case,
    holds_under_dropout,
    normal,
    tried_in,
)
from pretzel.testing.tiny_model import batch, documents, six_documents
from pretzel.typing import Float, Tensor

SLOPE, SLOPE_STEP = 1e-6, 1e-5
"""Tolerance of a slope by finite differences, and their step, in float64."""


def latents(model: Pretzel, rows: int, key: str = "x") -> Float[Tensor, "m n d"]:
    """Return standard normal latents for a model, float64."""
    return normal(rows, model.latent.num_positions, model.latent.channels, key=key)


def inputs_of(
    model: Pretzel,
    docs: Sequence[Document],
    u: Float[Tensor, "m n d"],
    x: Float[Tensor, "m n d"] | None = None,
) -> StreamInputs:
    """Return the inputs of both streams for documents, without caches, as in training.

    A VLM that is shown more than u sees the noised latents x; None for those of u.
    """
    vision_input = model.interleaving.vision_input
    vision = None
    if vision_input is not None and not vision_input.is_causal:
        with torch.no_grad():
            x = model.shallow.inverse(u.detach()) if x is None else x
        vision = model.vision_features(u, x)
    return stream_inputs(model.pack(docs), u, vision)


def run_streams(
    model: Pretzel,
    docs: Sequence[Document],
    u: Float[Tensor, "m n d"],
    x: Float[Tensor, "m n d"] | None = None,
) -> StreamOutputs:
    """Run both streams over documents; arguments as those of :func:`inputs_of`."""
    inputs = inputs_of(model, docs, u, x)
    outputs: StreamOutputs = model.interleaving(inputs, model.vlm, model.deep)
    return outputs


def parameters_of_u(
    model: Pretzel,
    docs: Sequence[Document],
    u: Float[Tensor, "m n d"],
    x: Float[Tensor, "m n d"] | None = None,
) -> Float[Tensor, "m n p"]:
    """Return the deep stream's transform parameters of every image position."""
    is_image = model.pack(docs).is_image
    deep = run_streams(model, docs, u, x).deep
    before = deep[:, :-1][is_image[:, 1:]]
    return model.deep.params(before.view(*u.shape[:2], before.shape[-1]))


def exercise(model: Pretzel) -> None:
    """Score documents once."""
    model.score(documents(), latents(model, len(documents())))


@tried_in(PERTURBED, PERTURBED_EVAL)
def likelihood_is_exact(case: Case[Pretzel]) -> Deviation:
    """log_prob is not log N(z; 0, 1) + log|det dz/dx| with the Jacobian of the whole model."""
    model = case.build()
    results = []
    for document in documents()[::3]:
        x = latents(model, 1)[0]
        dims = x.numel()

        def z_of(rows: Tensor, document: Document = document) -> Tensor:
            return model.score([document] * len(rows), rows).z

        logdet = torch.linalg.slogdet(jacobian(z_of, x).reshape(dims, dims)).logabsdet
        with torch.no_grad():
            output = model.score([document], x[None])
        gaussian = -0.5 * output.z.square().sum() - 0.5 * dims * math.log(2 * math.pi)
        results.append(within(output.log_prob[0], gaussian + logdet, FP64, "log_prob"))
    return worst_of(*results)


@tried_in(PERTURBED, PERTURBED_EVAL)
def means_see_only_the_past(case: Case[Pretzel]) -> Deviation:
    """The parameters of u_n depend on u_m with m >= n, through the flow or through the VLM."""
    model = case.build()
    results = []
    for document in documents()[1:]:
        u = latents(model, 1, key="u")[0]

        def params(rows: Tensor, document: Document = document) -> Tensor:
            # One random combination of a position's parameters: zero only if all of them are.
            # Latents of which each depends on all of u stand for those that f_S^-1 makes of it.
            x = rows + rows.mean(dim=1, keepdim=True)
            theta = parameters_of_u(model, [document] * len(rows), rows, x)
            return (theta * normal(theta.shape[-1], key="combination")).sum(-1, keepdim=True)

        full = jacobian(params, u).abs()
        n = len(u)
        not_before = torch.ones(n, n, dtype=torch.bool).triu()[:, None, :, None]
        results.append(worst(full * not_before, FP64, "d theta_n / d u_m for m >= n"))
        past = (full * ~not_before).amax(dim=(1, 2, 3))[1:]
        is_seen = not case.perturbed or bool((past > 0).all())
        require(is_seen, "d theta_n / d u_m is zero for all m < n: the past is not seen")
    return check(worst_of(*results))


@tried_in(PERTURBED_EVAL)
def text_conditions_images(case: Case[Pretzel]) -> Deviation:
    """The text before an image has no effect on it, another's or none has the same; or it is read.

    The last where the interleaving says that it reads no text.
    """
    model = case.build()
    docs = six_documents()[:5]
    u = latents(model, 1, key="u")
    with torch.no_grad():
        params = [parameters_of_u(model, [document], u)[0] for document in docs]
    if not model.interleaving.reads_text:
        return within(torch.stack(params[1:]), torch.stack(params[:-1]), FP64, "without text")
    for i, j in ((0, 4), (0, 2), (1, 4)):  # two of one length, a dropped one, a long one
        distance = (params[i] - params[j]).abs().amax(dim=1)
        names = f"{docs[i].key!r} and {docs[j].key!r}"
        seen = bool((distance > FP64).all())
        require(seen, f"the parameters of an image are the same under {names}")
    return unmeasured("text conditions images")


def with_questions(document: Document) -> Document:
    """Return a captioned image with questions behind it."""
    return Document(key="", segments=(*document.segments, *documents()[3].segments[1:]))


@tried_in(PERTURBED, PERTURBED_EVAL)
def text_sees_only_the_past(case: Case[Pretzel]) -> Deviation:
    """The prediction of a token depends on later positions of the sequence."""
    model = case.build()
    if not model.interleaving.answers:
        return unmeasured("no text is predicted")
    document = with_questions(documents()[0])
    packed = model.pack([document])
    u = latents(model, 1, key="u")
    begin = int(packed.is_image[0].int().argmax())
    with torch.no_grad():
        states = run_streams(model, [document], u).text
        changed = run_streams(model, [document], u + 1).text
    assert states is not None
    assert changed is not None
    behind = (states - changed)[0, begin + u.shape[1] :].abs().amax(dim=1)
    require(bool((behind > 0).all()), "text behind an image does not see it")
    return within(changed[:, :begin], states[:, :begin], FP64, "text states before the image")


@tried_in(PERTURBED, PERTURBED_EVAL)
def rows_are_independent(case: Case[Pretzel]) -> Deviation:
    """A document's likelihoods depend on the other documents, or on their lengths."""
    model = case.build()
    docs = six_documents()
    x = latents(model, len(docs))
    with torch.no_grad():
        together = model.score(docs, x)
        alone = [model.score([document], x[i : i + 1]) for i, document in enumerate(docs)]
    single = torch.cat([output.token_nll for output in alone])
    return worst_of(
        within(torch.cat([a.log_prob for a in alone]), together.log_prob, FP64, "log_prob"),
        within(single, together.token_nll, FP64, "token likelihoods"),
    )


@holds_under_dropout
def inputs_are_not_modified(case: Case[Pretzel]) -> Deviation:
    """The model writes into the latents it is given."""
    model = case.build()
    x = latents(model, 4)
    argument = x.clone()
    with torch.no_grad():
        model.score(documents(), argument)
    return within(argument, x, 0.0, "latents afterwards")


@holds_under_dropout
def every_parameter_is_trained(case: Case[Pretzel]) -> Deviation:
    """A trainable parameter gets no gradient from the joint loss, or one that is not finite."""
    model = case.build()
    deviation = check_gradients(model, joint_loss(model), nonzero=case.perturbed)
    for name in model.frozen:
        part = getattr(model, name)
        trained = [n for n, p in part.named_parameters() if p.requires_grad]
        require(not trained, f"{name} must be frozen, but {trained[:1]} asks for a gradient")
    return deviation


def joint_loss(model: Pretzel) -> Float[Tensor, ""]:
    """Return the negative log-likelihood of the images and tokens of a small batch."""
    examples = batch(model)
    output: Scores = model(examples, latents(model, len(examples.images), key="noise"))
    return -output.log_prob.sum() + output.token_nll.sum()


@holds_under_dropout
@tried_in(PERTURBED)
def gradients_are_those_of_finite_differences(case: Case[Pretzel]) -> Deviation:
    """The gradient of the joint loss is not its derivative: a term is detached or clamped.

    Along a random direction in all parameters, by central differences. Of an interleaving that
    detaches u on purpose, the shallow blocks are left out.
    """
    model = case.build()
    detached = getattr(model.interleaving, "detach_u", False)
    named = {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad and not (detached and name.startswith("shallow."))
    }
    parameters = list(named.values())
    with seeded("gradients"):
        gradients = torch.autograd.grad(joint_loss(model), parameters, allow_unused=True)
    directions = [normal(*p.shape, key=f"direction of {name}") for name, p in named.items()]
    slope = sum(
        (gradient * direction).sum()
        for gradient, direction in zip(gradients, directions, strict=True)
        if gradient is not None
    )
    step = SLOPE_STEP
    values = []
    with torch.no_grad():
        for signed in (step, -2 * step, step):  # the last puts the parameters back
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=signed)
            with seeded("gradients"):  # the same numbers are dropped
                values.append(joint_loss(model))
    difference = (values[0] - values[1]) / (2 * step)
    return within(torch.as_tensor(slope), difference, SLOPE, "slope of the joint loss")


def state_dict_holds_everything(case: Case[Pretzel]) -> Deviation:
    """A model with the same state dict computes something else: part of its state is not saved.

    The one that is saved has been used before, on other documents.
    """
    model, other = case.build(), case.build(seed=1)
    docs, x = documents(), latents(model, 4)
    with torch.no_grad():
        model.score(docs[::-1], latents(model, 4, key="other") + 1)
        other.load_state_dict(model.state_dict())
        first, second = model.score(docs, x), other.score(docs, x)
    return worst_of(
        within(second.log_prob, first.log_prob, 0.0, "log_prob after loading"),
        within(second.token_nll, first.token_nll, 0.0, "token likelihoods after loading"),
    )


@tried_in(PERTURBED, PERTURBED_EVAL)
def calls_leave_no_trace(case: Case[Pretzel]) -> Deviation:
    """Likelihoods depend on what was scored before, or scoring touches the random states."""
    model = case.build()
    docs, x = six_documents()[2:5], latents(model, 3)
    with torch.no_grad(), untouched("scoring"):
        first = model.score(docs, x)
    with torch.no_grad():
        model.score(six_documents(), latents(model, 6, key="other") + 1)
        again = model.score(docs, x)
    return worst_of(
        within(again.log_prob, first.log_prob, 0.0, "log_prob once more"),
        within(again.token_nll, first.token_nll, 0.0, "token likelihoods once more"),
    )


@tried_in(PERTURBED)
def evaluation_computes_what_was_trained(case: Case[Pretzel]) -> Deviation:
    """Likelihoods are others in evaluation mode than in training, though nothing is drawn."""
    model, docs = case.build(), documents()
    x = latents(model, 4)
    with torch.no_grad():
        trained, evaluated = (model.train(mode).score(docs, x) for mode in (True, False))
    return worst_of(
        within(evaluated.log_prob, trained.log_prob, FP64, "log_prob in evaluation mode"),
        within(evaluated.token_nll, trained.token_nll, FP64, "token likelihoods in it"),
    )


@tried_in(PERTURBED_EVAL)
def unfinished_images_are_not_seen(case: Case[Pretzel]) -> Deviation:
    """States inside an image depend on features of the whole image that the VLM is shown."""
    model = case.build()
    vision_input = model.interleaving.vision_input
    if vision_input is None or vision_input.is_causal:
        return unmeasured("u alone is seen")
    text = Text(content="a circle?")
    two = [Document(key="", segments=(text, Image(), text, Image(), text))]
    inputs = inputs_of(model, two, latents(model, 2, key="u"))
    assert inputs.vision is not None
    places = inputs.is_image[0].nonzero()[:, 0].view(2, -1)
    with torch.no_grad():
        expected = model.interleaving(inputs, model.vlm, model.deep)
        results = []
        for image in places:
            vision = inputs.vision.clone()
            vision[:, image] += 1
            actual = model.interleaving(replace(inputs, vision=vision), model.vlm, model.deep)
            changed = (actual.deep - expected.deep).abs().amax(dim=(0, 2))
            # From the position behind end-of-image on, the image may be seen.
            require(bool(changed[image[-1] + 2 :].all()), "a completed image is not seen")
            results.append(worst(changed[: image[-1] + 1], FP64, "states up to its last position"))
    return check(worst_of(*results))


@tried_in(PERTURBED_EVAL)
def float32_is_close(case: Case[Pretzel]) -> Deviation:
    """In float32 a likelihood is off by more than 1e-4 of its size."""
    model, exact = case.build(dtype=torch.float32), case.build()
    x = latents(exact, 4)
    with torch.no_grad():
        actual, expected = model.score(documents(), x.float()), exact.score(documents(), x)
        targets = F.mse_loss(actual.z.double(), expected.z).sqrt()
    require(float(targets) < FP32, f"z in float32 is off by {float(targets):.2g}")
    return worst_of(
        within(actual.log_prob.double(), expected.log_prob, FP32, "log_prob in float32"),
        within(actual.token_nll.double(), expected.token_nll, FP32, "token likelihoods"),
    )
