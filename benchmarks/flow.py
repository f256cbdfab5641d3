"""How fast the flow trains and samples, beside others and beside what the machine could do.

    python -m benchmarks.flow                 # tables on the screen
    python -m benchmarks.flow --out result    # and result.json, result.md
    python -m benchmarks.flow --quick         # seconds: does everything compute what it should?

Arms of a task run in one process, in turn, on one thread; a ratio is the median over rounds of the
times of one round, smallest and largest in brackets. CPU time is that of the one thread, which
other processes disturb less than the clock. The floor is the least time the first arm could take:
its matrix products at the rate of a large one, and for one-by-one sampling its weights and caches
at the rate of reading a buffer of that size, whichever is longer, both measured in this process.
Memory is what a task adds to the peak of a fresh process.
"""

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import dense, floor, flow_tasks, measure, memory, parallel, report
from benchmarks.measure import Comparison
from benchmarks.report import Section
from benchmarks.size import Size
from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and rounds of the measurements.

    Attributes:
        sizes: Sizes of the flow for training and one-by-one sampling.
        rounds: Rounds that count.
        dense: Width, transforms and batch of the 64-d problem.
        trained: Sizes of the flow that is trained for sampling by iteration.
        steps: Training steps of it.
        samples: Batches in which it samples.
        tolerance: Relative mean square change at which iteration stops.
        compiled: Whether layers are measured compiled as well.
    """

    sizes: tuple[Size, ...]
    rounds: int
    dense: tuple[int, int, int]
    trained: Size
    steps: int
    samples: tuple[int, ...]
    tolerance: float
    compiled: bool = False


def main(args: Sequence[str] | None = None) -> list[Section]:
    """Measure, print and, where asked, write the result.

    Args:
        args: A command line; None for this process's own.
    """
    options = _parser().parse_args(args)
    plan = make_plan(options)
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.child:
        print(memory.measure(_arm(options.child, plan, device)))
        return []
    command_line = None
    if not options.no_memory and not options.quick and device.type == "cpu":
        command_line = sys.argv[1:] if args is None else list(args)
    sections = []
    for make in (_flow, _dense, _parallel):
        section = make(plan, device)
        sections.append(section)
        print(f"measured: {section.title}", file=sys.stderr, flush=True)
    if command_line is not None:
        rows = [_with_memory(row, command_line) for row in sections[0].rows]
        sections[0] = replace(sections[0], rows=rows)
    header = _header(device, plan.rounds)
    text = report.markdown(header, sections)
    print(text)
    if options.out:
        options.out.with_suffix(".md").write_text(text + "\n")
        options.out.with_suffix(".json").write_text(report.record(header, sections))
    return sections


def make_plan(options: argparse.Namespace) -> Plan:
    """Return what a command line asks for."""
    tolerance = options.tolerance
    if options.quick:
        tiny = Size(side=2, channels=3, width=16, head_dim=8, layers=(1, 1), text=3, batch=2)
        return Plan(
            sizes=(tiny,),
            rounds=1,
            dense=(32, 2, 4),
            trained=replace(tiny, side=4, channels=parallel.channels(4), text=0),
            steps=2,
            samples=(2,),
            tolerance=tolerance,
        )
    if len(options.batch) not in (1, len(options.sides)):
        raise UserError(
            f"--batch takes one number, or one for each of --sides {options.sides}, "
            f"got {options.batch}"
        )
    batches = options.batch if len(options.batch) > 1 else options.batch * len(options.sides)
    sizes = [
        Size(
            side=side,
            channels=options.channels,
            width=options.width,
            head_dim=options.head_dim,
            layers=tuple(options.layers),
            text=options.text,
            batch=batch,
        )
        for side, batch in zip(options.sides, batches, strict=True)
    ]
    trained = Size(
        side=16,
        channels=parallel.channels(16),
        width=64,
        head_dim=32,
        layers=(1, 1, 1, 1),
        text=0,
        batch=8,
    )
    return Plan(
        sizes=tuple(sizes),
        rounds=options.rounds,
        dense=(96, 5, 256),
        trained=trained,
        steps=options.steps,
        samples=tuple(options.samples),
        tolerance=tolerance,
        compiled=options.compile,
    )


def _flow(plan: Plan, device: torch.device) -> Section:
    rows = []
    for size in plan.sizes:
        for task in flow_tasks.tasks(size, device, with_compiled=plan.compiled):
            rows += measure.run(task, plan.rounds, device)
    sizes = "; ".join(str(size) for size in plan.sizes)
    return Section(
        title="Training and one-by-one sampling",
        text="Same weights in all arms. Bare layers: Linear, SDPA, RMSNorm and GELU of the same "
        "shapes, forward and backward, no flow. Reference: materialised masks, lists of cached "
        "keys and values that are concatenated, and all rotated again, at every step; with "
        f"guidance its batch is doubled like ours. {sizes}.",
        rows=rows,
    )


def _dense(plan: Plan, device: torch.device) -> Section:
    width, transforms, batch = plan.dense
    tasks = dense.tasks(width, transforms, batch, device)
    text = " ".join((dense.__doc__ or "").split())
    return Section(
        title="64 dimensions beside zuko and normflows",
        text=f"{text} {transforms} transforms, ours of width {width} with one layer each.",
        rows=[row for task in tasks for row in measure.run(task, plan.rounds, device)],
    )


def _parallel(plan: Plan, device: torch.device) -> Section:
    trained = parallel.train(plan.trained, plan.steps, device)
    rows, notes = [], []
    for samples in plan.samples:
        tasks, parallel_notes = parallel.tasks(trained, samples, plan.tolerance, device)
        rows += [row for task in tasks for row in measure.run(task, plan.rounds, device)]
        notes += parallel_notes
    return Section(
        title="Iteration beside one-by-one sampling of a trained flow",
        text=f"A flow trained on easy-VQA pixels, noised by {parallel.NOISE}: {trained.size}; "
        f"{trained.steps} steps of AdamW in {trained.seconds:.0f} s took the loss from "
        f"{trained.losses[0]:.2f} (first tenth) to {trained.losses[1]:.2f} (last) nats a "
        "dimension.",
        rows=rows,
        notes=[f"- {note}" for note in notes],
    )


def _header(device: torch.device, rounds: int) -> list[str]:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").exists():
        models = [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        name = models[0] if models else name
    return [
        f"{name}, {torch.get_num_threads()} thread, torch {torch.__version__}, {rounds} rounds, "
        "four times as many of a training step; "
        f"a large float32 matrix product runs at {floor.rate(device) / 1e9:.0f} GFLOP/s, memory "
        f"is read at {floor.bandwidth(2**28, device) / 1e9:.0f} GB/s, "
        f"4 MiB of it again and again at {floor.bandwidth(2**22, device) / 1e9:.0f} GB/s."
    ]


def _arm(name: str, plan: Plan, device: torch.device) -> Callable[[], object]:
    task_name, arm = name.split("/")
    for size in plan.sizes:
        for task in flow_tasks.tasks(size, device, with_compiled=plan.compiled):
            if task.name == task_name:
                return task.arms[arm]
    raise AssertionError(f"no task {task_name}")


def _with_memory(row: Comparison, command_line: Sequence[str]) -> Comparison:
    return replace(
        row,
        mib=memory.added(row.task, row.arm, command_line),
        other_mib=memory.added(row.task, row.other, command_line),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round, no memory")
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32], help="of the grids")
    parser.add_argument("--channels", type=int, default=16, help="channels of a position")
    parser.add_argument("--width", type=int, default=128, help="channels of the transformers")
    parser.add_argument("--head_dim", type=int, default=64, help="channels of a head")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 2, 4], help="of each block")
    parser.add_argument("--text", type=int, default=128, help="text states before the image")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[16, 2], help="images, for each of --sides"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--steps", type=int, default=300, help="training steps before iteration")
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[1, 4], help="batches of iteration"
    )
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of iteration")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="measure compiled layers too")
    parser.add_argument("--no_memory", action="store_true", help="skip the child processes")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
