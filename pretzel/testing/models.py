"""The laws of interleavings, which only show in a whole model: likelihood, causality, training."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from pretzel.flow.generative_model import Scores
from pretzel.interleave.base import StreamInputs, StreamOutputs
from pretzel.interleave.skips import SkipConnection
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.model import Pretzel, stream_inputs
from pretzel.sequence.document import Document, Image, Text
from pretzel.testing.deviation import Deviation, check, require, within, worst, worst_of
from pretzel.testing.gradients import check_gradients, jacobian
from pretzel.testing.law_case import FP32, FP64, Case, normal, perturb
from pretzel.testing.tiny_model import batch, documents
from pretzel.typing import Float, Tensor


def latents(model: Pretzel, rows: int, key: str = "x") -> Float[Tensor, "m n d"]:
    """Return standard normal latents for a model, float64."""
    return normal(rows, model.latent.num_positions, model.latent.channels, key=key)


def inputs_of(
    model: Pretzel,
    whole: Sequence[Document],
    u: Float[Tensor, "m n d"],
    x: Float[Tensor, "m n d"] | None = None,
) -> StreamInputs:
    """Return what whole documents put into both streams, without caches, as training does.

    Args:
        model: The model.
        whole: Documents.
        u: Of their images.
        x: Their noised latents, where the VLM is shown more than u; None for those of u.
    """
    vision_input = model.interleaving.vision_input
    vision = None
    if vision_input is not None and not vision_input.is_causal:
        with torch.no_grad():
            x = model.shallow.inverse(u.detach()) if x is None else x
        vision = model.vision_features(u, x)
    return stream_inputs(model.pack(whole), u, vision)


def run_streams(
    model: Pretzel,
    whole: Sequence[Document],
    u: Float[Tensor, "m n d"],
    x: Float[Tensor, "m n d"] | None = None,
) -> StreamOutputs:
    """Run both streams over whole documents; arguments as those of :func:`inputs_of`."""
    inputs = inputs_of(model, whole, u, x)
    outputs: StreamOutputs = model.interleaving(inputs, model.vlm, model.deep)
    return outputs


def parameters_of_u(
    model: Pretzel,
    whole: Sequence[Document],
    u: Float[Tensor, "m n d"],
    x: Float[Tensor, "m n d"] | None = None,
) -> Float[Tensor, "m n p"]:
    """Return the transform parameters that the deep stream gives every image position."""
    is_image = model.pack(whole).is_image
    deep = run_streams(model, whole, u, x).deep
    before = deep[:, :-1][is_image[:, 1:]]
    return model.deep.params(before.view(*u.shape[:2], before.shape[-1]))


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
    return worst_of(results)


def means_see_only_the_past(case: Case[Pretzel]) -> Deviation:
    """The parameters of u_n depend on u_m with m >= n, through the flow or through the VLM."""
    model = case.build()
    results = []
    for document in documents():
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
        require(
            not case.perturbed or bool((past > 0).all()),
            "d theta_n / d u_m is zero for all m < n: the past is not seen",
        )
    return check(worst_of(results))


def text_sees_only_the_past(case: Case[Pretzel]) -> Deviation:
    """What predicts text depends on later positions of the sequence."""
    model = case.build()
    if not model.interleaving.answers:
        return Deviation(what="no text is predicted", error=0.0, tolerance=0.0)
    document = documents()[0]
    document = Document(key="", segments=(*document.segments, *documents()[3].segments[1:]))
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


def rows_are_independent(case: Case[Pretzel]) -> Deviation:
    """A document's likelihoods depend on the other documents, or on their lengths."""
    model = case.build()
    whole, x = documents(), latents(model, 4)
    with torch.no_grad():
        together = model.score(whole, x)
        alone = [model.score([document], x[i : i + 1]) for i, document in enumerate(whole)]
    single = torch.cat([output.token_nll for output in alone])
    return worst_of(
        [
            within(torch.cat([a.log_prob for a in alone]), together.log_prob, FP64, "log_prob"),
            within(single, together.token_nll, FP64, "token likelihoods"),
        ]
    )


def inputs_are_not_modified(case: Case[Pretzel]) -> Deviation:
    """The model writes into the latents it is given."""
    model = case.build()
    x = latents(model, 4)
    given = x.clone()
    with torch.no_grad():
        model.score(documents(), given)
    return within(given, x, 0.0, "latents afterwards")


def every_parameter_is_trained(case: Case[Pretzel]) -> Deviation:
    """A trainable parameter gets no gradient from the joint loss, or one that is not finite."""
    model = case.build()
    given = batch(model)
    noise = latents(model, len(given.images), key="noise")
    output = model(given, noise)
    loss = -output.log_prob.sum() + output.token_nll.sum()
    deviation = check_gradients(model, loss, nonzero=case.perturbed)
    for name in model.frozen:
        part = getattr(model, name)
        trained = [n for n, p in part.named_parameters() if p.requires_grad]
        require(not trained, f"{name} must be frozen, but {trained[:1]} asks for a gradient")
    return deviation


def state_dict_holds_everything(case: Case[Pretzel]) -> Deviation:
    """A model with the same state dict computes something else: part of its state is not saved."""
    model, other = case.build(), case.build(seed=1)
    other.load_state_dict(model.state_dict())
    x = latents(model, 4)
    with torch.no_grad():
        first, second = model.score(documents(), x), other.score(documents(), x)
    return worst_of(
        [
            within(second.log_prob, first.log_prob, 0.0, "log_prob after loading"),
            within(second.token_nll, first.token_nll, 0.0, "token likelihoods after loading"),
        ]
    )


def unfinished_images_are_not_seen(case: Case[Pretzel]) -> Deviation:
    """A VLM that is shown more of position n than u_n leads into an image being modelled."""
    model = case.build()
    vision_input = model.interleaving.vision_input
    if vision_input is None or vision_input.is_causal:
        return Deviation(what="u alone is seen", error=0.0, tolerance=0.0)
    text = Text(content="a circle?")
    two = [Document(key="", segments=(text, Image(), text, Image(), text))]
    inputs = inputs_of(model, two, latents(model, 2, key="u"))
    assert inputs.vision is not None
    own = inputs.is_image[0].nonzero()[:, 0].view(2, -1)
    with torch.no_grad():
        expected = model.interleaving(inputs, model.vlm, model.deep)
        results = []
        for image in own:
            vision = inputs.vision.clone()
            vision[:, image] += 1
            found = model.interleaving(replace(inputs, vision=vision), model.vlm, model.deep)
            changed = (found.deep - expected.deep).abs().amax(dim=(0, 2))
            # Behind it stands end-of-image, and then nothing is left to be hidden.
            require(bool(changed[image[-1] + 2 :].all()), "a completed image is not seen")
            results.append(worst(changed[: image[-1] + 1], FP64, "states up to its last position"))
    return check(worst_of(results))


def _skips(model: Pretzel) -> dict[str, SkipConnection]:
    return {name: m for name, m in model.named_modules() if isinstance(m, SkipConnection)}


def _is_exempt(model: Pretzel) -> Deviation | None:
    """Return why a law on skips that start at zero does not ask for anything; None if it does."""
    opened = [name for name, skip in _skips(model).items() if not skip.starts_at_zero]
    if opened:
        return Deviation(what=f"{opened[0]} starts open", error=0.0, tolerance=0.0)
    return None


AT_START = Deviation(what="at initialisation only", error=0.0, tolerance=0.0)


def text_starts_as_the_vlm(case: Case[Pretzel]) -> Deviation:
    """At initialisation text is not predicted exactly as a VLM does that is shown the same."""
    if case.perturbed:
        return AT_START
    model = case.build(dtype=torch.float32)
    exempt = _is_exempt(model)
    if exempt or not model.interleaving.answers:
        return exempt or Deviation(what="no text is predicted", error=0.0, tolerance=0.0)
    document = documents()[1]
    document = Document(key="", segments=(*document.segments, *documents()[3].segments[1:]))
    u = latents(model, 1, key="u").float()
    inputs = inputs_of(model, [document], u)
    begin = int(inputs.is_image[0].int().argmax())
    is_text = ~inputs.is_image
    interleaving, vlm = model.interleaving, model.vlm
    # Weights that are routed run over other rows at once, which rounds differently.
    is_same_arithmetic = isinstance(interleaving, VisionInterleaving)
    with torch.no_grad():
        text = interleaving(inputs, vlm, model.deep).text
        own = vlm(interleaving.embed(inputs.tokens, vlm), inputs.index)[:, :begin]
        found, expected = (vlm.logits(states) for states in (text[:, :begin], own))
        tolerance = 0.0 if is_same_arithmetic else 1e-6
        results = [within(found, expected, tolerance, "logits before an image = the VLM's own")]
        if isinstance(interleaving, VisionInterleaving):
            whole = interleaving.run_vlm(inputs, vlm, None)
            assert whole is not None
            found, expected = (vlm.logits(states[is_text]) for states in (text, whole))
            results.append(within(found, expected, 0.0, "logits = the VLM's own"))
    return worst_of(results)


def text_alone_is_the_same(case: Case[Pretzel]) -> Deviation:
    """While skips to text are closed, text scored without the deep stream is not that with it."""
    if case.perturbed:
        return AT_START
    model = case.build(dtype=torch.float32)
    skips = model.interleaving.skips_to_text()
    if skips is None or not all(skip.starts_at_zero for skip in skips):
        return Deviation(what="text needs the deep stream", error=0.0, tolerance=0.0)
    for part in (model.deep, model.shallow):  # a flow that does something
        perturb(part)
    closed = {id(parameter) for skip in skips for parameter in skip.parameters()}
    trained = [p for p in model.interleaving.parameters() if id(p) not in closed]
    x = latents(model, 4).float()

    def scored(scores: Scores) -> tuple[Tensor, list[Tensor]]:
        # a gradient of zeros where nothing that trains enters the text
        loss = scores.token_nll.sum() + 0.0 * sum(p.sum() for p in trained)
        return scores.token_nll.detach(), list(torch.autograd.grad(loss, trained))

    expected, its_gradients = scored(model.score(documents(), x))
    found, own_gradients = scored(model.score_text(documents(), x))
    results = [within(found, expected, 0.0, "token likelihoods without the deep stream")]
    for own, its in zip(own_gradients, its_gradients, strict=True):
        results.append(within(own, its, 0.0, "gradients without the deep stream"))
    return worst_of(results)


def vision_starts_as_the_plain_flow(case: Case[Pretzel]) -> Deviation:
    """At initialisation what the VLM makes of an image changes what the flow does."""
    if case.perturbed:
        return AT_START
    model = case.build()
    exempt = _is_exempt(model)
    if exempt or not isinstance(model.interleaving, VisionInterleaving):
        return exempt or Deviation(what="there are no skips", error=0.0, tolerance=0.0)
    for part in (model.deep, model.shallow):  # a flow that does something
        perturb(part)
    u = latents(model, 1, key="u")
    with torch.no_grad():
        expected = parameters_of_u(model, [documents()[1]], u)
        shown = normal(model.vlm.hidden_size, key="shown")
        hook = model.interleaving.adapter.register_forward_hook(lambda *args: args[-1] + shown)
        found = parameters_of_u(model, [documents()[1]], u)
        hook.remove()
    return within(found, expected, 0.0, "parameters of u")


def skips_leave_zero(case: Case[Pretzel]) -> Deviation:
    """A skip that starts at zero gets no gradient there, and stays what it is."""
    if case.perturbed:
        return AT_START
    model = case.build()
    skips = _skips(model)
    for skip in skips.values():
        skip.requires_grad_(False)
    perturb(model)
    for skip in skips.values():
        skip.requires_grad_(True)
    if skips:
        given = batch(model)
        output = model(given, latents(model, len(given.images), key="noise"))
        loss = -output.log_prob.sum() + output.token_nll.sum()
        for name, skip in skips.items():
            gradients = torch.autograd.grad(
                loss, list(skip.parameters()), retain_graph=True, allow_unused=True
            )
            moves = any(gradient is not None and bool(gradient.any()) for gradient in gradients)
            require(moves, f"gradient: {name} gets none in any of its parameters")
    return Deviation(what="gradient", error=0.0, tolerance=0.0)


def float32_is_close(case: Case[Pretzel]) -> Deviation:
    """In float32 a likelihood is off by more than 1e-4 of its size."""
    model, exact = case.build(dtype=torch.float32), case.build()
    x = latents(exact, 4)
    with torch.no_grad():
        found, expected = model.score(documents(), x.float()), exact.score(documents(), x)
        targets = F.mse_loss(found.z.double(), expected.z).sqrt()
    require(float(targets) < FP32, f"z in float32 is off by {float(targets):.2g}")
    return worst_of(
        [
            within(found.log_prob.double(), expected.log_prob, FP32, "log_prob in float32"),
            within(found.token_nll.double(), expected.token_nll, FP32, "token likelihoods"),
        ]
    )
