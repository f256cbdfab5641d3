"""The laws of a model before its first step: zero skips leave it the VLM and a plain flow."""

import torch

from pretzel.interleave.skips import SkipConnection
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.latent.generative_model import Scores
from pretzel.model import Pretzel
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import (
    INITIAL,
    INITIAL_EVAL,
    Case,
    holds_under_dropout,
    normal,
    perturb,
    tried_in,
)
from pretzel.testing.laws.models import (
    inputs_of,
    joint_loss,
    latents,
    parameters_of_u,
    with_questions,
)
from pretzel.testing.tiny_model import documents
from pretzel.typing import Tensor


def _skips(model: Pretzel) -> dict[str, SkipConnection]:
    return {name: m for name, m in model.named_modules() if isinstance(m, SkipConnection)}


def _is_exempt(model: Pretzel) -> Deviation | None:
    """Return a deviation that exempts a model with open skips from a law, or None."""
    opened = (name for name, skip in _skips(model).items() if not skip.starts_at_zero)
    name = next(opened, None)
    return None if name is None else unmeasured(f"{name} starts open")


@tried_in(INITIAL_EVAL)
def text_starts_as_the_vlm(case: Case[Pretzel]) -> Deviation:
    """At initialisation the predictions of text differ from those of the VLM on the same input."""
    model = case.build(dtype=torch.float32)
    exempt = _is_exempt(model)
    if exempt or not model.interleaving.answers:
        return exempt or unmeasured("no text is predicted")
    document = with_questions(documents()[1])
    u = latents(model, 1, key="u").float()
    inputs = inputs_of(model, [document], u)
    begin = int(inputs.is_image[0].int().argmax())
    is_text = ~inputs.is_image
    interleaving, vlm = model.interleaving, model.vlm
    # Routed weights run over other rows at once, which rounds differently.
    is_same_arithmetic = isinstance(interleaving, VisionInterleaving)
    with torch.no_grad():
        text = interleaving(inputs, vlm, model.deep).text
        vlm_states = vlm(interleaving.embed(inputs.tokens, vlm), inputs.index)[:, :begin]
        actual, expected = (vlm.logits(states) for states in (text[:, :begin], vlm_states))
        tolerance = 0.0 if is_same_arithmetic else 1e-6
        results = [within(actual, expected, tolerance, "logits before an image = the VLM's own")]
        if isinstance(interleaving, VisionInterleaving):
            docs = interleaving.run_vlm(inputs, vlm, None)
            assert docs is not None
            actual, expected = (vlm.logits(states[is_text]) for states in (text, docs))
            results.append(within(actual, expected, 0.0, "logits = the VLM's own"))
    return worst_of(*results)


@tried_in(INITIAL_EVAL)
def text_alone_is_the_same(case: Case[Pretzel]) -> Deviation:
    """While skips to text are zero, text is scored differently without the deep stream."""
    model = case.build(dtype=torch.float32)
    skips = model.interleaving.skips_to_text()
    if skips is None or not all(skip.starts_at_zero for skip in skips):
        return unmeasured("text needs the deep stream")
    for part in (model.deep, model.shallow):  # a flow that does something
        perturb(part)
    closed = {id(parameter) for skip in skips for parameter in skip.parameters()}
    trained = [p for p in model.interleaving.parameters() if id(p) not in closed]
    x = latents(model, 4).float()

    def scored(scores: Scores) -> tuple[Tensor, list[Tensor]]:
        # a gradient of zeros where no trained parameter enters the text
        loss = scores.token_nll.sum() + 0.0 * sum(p.sum() for p in trained)
        return scores.token_nll.detach(), list(torch.autograd.grad(loss, trained))

    expected, expected_gradients = scored(model.score(documents(), x))
    actual, actual_gradients = scored(model.score_text(documents(), x))
    results = [within(actual, expected, 0.0, "token likelihoods without the deep stream")]
    for gradient, reference in zip(actual_gradients, expected_gradients, strict=True):
        results.append(within(gradient, reference, 0.0, "gradients without the deep stream"))
    return worst_of(*results)


@tried_in(INITIAL_EVAL)
def vision_starts_as_the_plain_flow(case: Case[Pretzel]) -> Deviation:
    """At initialisation the VLM's states of an image change the flow's parameters."""
    model = case.build()
    exempt = _is_exempt(model)
    if exempt or not isinstance(model.interleaving, VisionInterleaving):
        return exempt or unmeasured("there are no skips")
    for part in (model.deep, model.shallow):  # a flow that does something
        perturb(part)
    u = latents(model, 1, key="u")
    with torch.no_grad():
        expected = parameters_of_u(model, [documents()[1]], u)
        offset = normal(model.vlm.hidden_size, key="shown")
        with model.interleaving.adapter.register_forward_hook(lambda *args: args[-1] + offset):
            actual = parameters_of_u(model, [documents()[1]], u)
    return within(actual, expected, 0.0, "parameters of u")


@holds_under_dropout
@tried_in(INITIAL)
def skips_leave_zero(case: Case[Pretzel]) -> Deviation:
    """A skip that starts at zero gets no gradient there, and stays zero."""
    model = case.build()
    skips = _skips(model)
    for skip in skips.values():
        skip.requires_grad_(False)
    perturb(model)
    for skip in skips.values():
        skip.requires_grad_(True)
    if skips:
        loss = joint_loss(model)
        for name, skip in skips.items():
            own = list(skip.parameters())
            gradients = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
            moves = any(gradient is not None and bool(gradient.any()) for gradient in gradients)
            require(moves, f"gradient: {name} gets none in any of its parameters")
    return unmeasured("gradient")
