"""Cost of a token and of an image position in one long sequence of texts and images.

    python -m benchmarks.generation           # the shipped tiny model, and one of > 100 MB
    python -m benchmarks.generation --quick   # seconds: does everything compute what it should?

A conversation of nine turns, each a question, its answer, a caption and its image, is held in one
sequence by :class:`pretzel.generation.state.GenerationState`, and again by an arm that throws the
caches away whenever it turns to a text or an image and encodes all before in one pass, or that has
no caches; all must give the same tokens and latents. Weights are random, batch 1, one thread, one
process; times are CPU times. Arms run in turn, and so do steps at several lengths of the sequence
(:mod:`benchmarks.generation_growth`). A ratio is the median over rounds of the ratio within a
round, smallest and largest in brackets. The floor is the least time a step could take: the longer
of its matrix products at the rate of a large one, and the weights and cached keys and values that
it cannot do without at the rate of reading a buffer of that size, both measured in this process.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    floor,
    generation_arms,
    generation_bytes,
    generation_growth,
    generation_tables,
    measure,
)
from benchmarks.generation_script import Script, Trace
from benchmarks.measure import Task
from benchmarks.stages import WordsAsTokens
from pretzel.model import Pretzel
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.sampling.guidance import GaussianMixing, Guidance, NoGuidance
from pretzel.training.module import PretzelModule
from pretzel.typing import Float, Tensor

BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"
COARSE = {"class_path": "pretzel.latent.Autoencoder", "init_args": {"patch_size": 8, "noise": 0.3}}
"""A latent space of four positions."""
CPU = torch.device("cpu")
Arm = Callable[[Pretzel, Script], tuple[Float[Tensor, " k"], Trace]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Measurements of one model.

    Attributes:
        name: Name of the model.
        changes: Changes of the shipped configuration, by dotted keys.
        script: The conversation.
        rounds: Rounds of steps that count.
        conversations: Rounds of whole conversations that count.
        shown: Numbers of images behind which steps are timed.
        others: Arms that ours is compared to.
        compared: Numbers of images up to which conversations are.
    """

    name: str
    changes: Mapping[str, Any]
    script: Script
    rounds: int
    conversations: int
    after_images: Sequence[int]
    others: Mapping[str, Arm]
    compared: Sequence[int]


def built(changes: Mapping[str, Any]) -> Pretzel:
    """Return the shipped configuration's model, changed, its weights moved from where they start.

    Where they start the skips between the streams are zero.
    """
    config = read(BASE)
    for key, value in changes.items():
        config = override(config, key, value, Source(name="benchmark"))
    cli = ParseOnlyCLI()
    torch.manual_seed(0)
    module = cli.build_model("fit", cli.parse("fit", config))
    assert isinstance(module, PretzelModule)
    assert isinstance(module.pretzel, Pretzel)
    with torch.no_grad():
        for parameter in module.pretzel.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return module.pretzel.eval()


def wide(width: int, layers: tuple[int, int]) -> Mapping[str, Any]:
    """Return changes: a random Llama and a flow of that width, with so many layers."""
    path = f"{WordsAsTokens.__module__}.{WordsAsTokens.__qualname__}"
    flow = {"width": width, "head_dim": 64}
    return {
        "model.pretzel.vlm.class_path": path,
        "model.pretzel.vlm.init_args": {"width": width, "num_layers": layers[0]},
        "model.pretzel.split.deep": layers[1],
        "model.pretzel.shallow.conditioner": flow,
        "model.pretzel.deep.conditioner": flow,
    }


def traced(model: Pretzel, plan: Plan) -> dict[str, list[Trace]]:
    """Hold the conversation by all arms, in turn; return each arm's rounds that count.

    Raises:
        AssertionError: If arms do not give the same tokens and latents.
    """
    traces: dict[str, list[Trace]] = {}

    def arm(name: str, hold: Arm) -> Callable[[], Tensor]:
        def run() -> Tensor:
            result, trace = hold(model, plan.script)
            traces.setdefault(name, []).append(trace)
            return result

        return run

    arms: dict[str, Arm] = {"ours": generation_arms.ours, **plan.others}
    task = Task(
        name=plan.name,
        arms={name: arm(name, hold) for name, hold in arms.items()},
        equal=dict.fromkeys(plan.others, 1e-3),
    )
    measure.run(task, plan.conversations, CPU)
    return {name: traces[name][1:] for name in arms}  # the first round warms up


def plans(quick: bool, rounds: int) -> list[Plan]:
    """Return what is measured."""

    def script(turns: int, guidance: Guidance, tokens: int = 16) -> Script:
        return Script(turns=turns, tokens=3 if quick else tokens, guidance=guidance)

    again: Mapping[str, Arm] = {"re-encoding": generation_arms.reencoding}
    none: Mapping[str, Arm] = {"no caches": generation_arms.uncached}
    guided, plain = GaussianMixing(weight=3.0), NoGuidance()
    turns, after_images, compared = (
        (3, (0, 1, 2), (1, 2)) if quick else (9, (0, 1, 2, 4, 8), (2, 4, 8))
    )
    small: Mapping[str, Any] = {"model.pretzel.latent": COARSE} if quick else {}
    large = {**wide(64, (1, 1)), **small} if quick else wide(512, (5, 3))
    few, fewer = (rounds + 1) // 2, max(1, rounds // 2)
    return [
        Plan(name="tiny, guided", changes=small, script=script(turns, guided), rounds=rounds,
             conversations=few, after_images=after_images, others=again, compared=compared),
        Plan(name="tiny, guided, beside no caches", changes=small, script=script(3, guided),
             rounds=0, conversations=1, after_images=(), others=none, compared=(1, 2)),
        Plan(name="wide", changes=large, script=script(turns, plain), rounds=few,
             conversations=fewer, after_images=after_images, others=again, compared=compared),
        Plan(name="wide, guided", changes=large, script=script(2, guided), rounds=few,
             conversations=0, after_images=(0, 1), others={}, compared=()),
    ]  # fmt: skip


def report(plan: Plan) -> list[str]:
    """Measure one model, and tell."""
    model = built(plan.changes)
    needs = [generation_bytes.weights(model, kind) / 1e6 for kind in ("token", "position")]
    lines = [
        f"### {plan.name}",
        "",
        f"A token needs {needs[0]:.1f} MB of weights, an image position {needs[1]:.1f} MB; "
        f"{model.latent.num_positions} positions an image, {plan.script.tokens} tokens an answer; "
        f"{plan.rounds} rounds of steps, {plan.conversations} of conversations.",
    ]
    if plan.after_images:
        memory = generation_bytes.memory(model, plan.script)
        places = generation_growth.grown(model, plan.script, plan.after_images, plan.rounds)
        lines += ["", *generation_tables.growth(model, places, memory)]
        lines += ["", *generation_tables.memory(memory)]
    if plan.others:
        lines += ["", *generation_tables.comparison(traced(model, plan), plan.compared)]
    return lines


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, of the smallest")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    size = 2**20 if options.quick else 2**27
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread; {size >> 20} MiB of memory "
        f"are read at {floor.bandwidth(size, CPU) / 1e9:.1f} GB/s"
    )
    for plan in plans(options.quick, 1 if options.quick else options.rounds):
        print("\n" + "\n".join(report(plan)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
