"""The benchmark at tiny sizes: its arms compute the same, its result is told; it is not timed."""

import json

import pytest
import torch

from benchmarks import flow_tasks, measure
from benchmarks.flow import main
from benchmarks.measure import Task
from benchmarks.size import Size, build
from pretzel.errors import UserError

CPU = torch.device("cpu")
TINY = Size(side=3, channels=3, width=16, head_dim=8, layers=(1, 1), text=2, batch=2)
GUIDED = "guided sampling, 2x2"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "flow"
    sections = main(["--quick", "--out", str(out)])
    return sections, out.with_suffix(".md").read_text(), out.with_suffix(".json").read_text()


def test_every_comparison_is_there(result):
    flow, dense, trained = result[0]
    assert [(row.task, row.other) for row in flow.rows] == [
        ("training step, 2x2", "bare layers"),
        ("training step, 2x2", "reference"),
        ("sampling, 2x2", "reference"),
        (GUIDED, "reference"),
    ]
    assert [row.other.split(",")[0] for row in dense.rows] == ["zuko MAF", "normflows MAF"] * 2
    assert [row.arm for row in trained.rows] == ["Jacobi", "GaussSeidelJacobi"]
    rows = [row for section in result[0] for row in section.rows]
    assert all(row.floor > 0 and row.seconds > 0 for row in rows)
    assert len(trained.notes) == 2


def test_result_is_written_as_markdown_and_json(result):
    sections, markdown, saved = result
    assert f"| {GUIDED} | ours / reference |" in markdown
    assert f"torch {torch.__version__}" in markdown
    assert "grid 2x2x3, width 16, heads of 8, blocks of [1, 1] layers" in markdown
    assert [s["title"] for s in json.loads(saved)["sections"]] == [s.title for s in sections]


def test_training_steps_of_both_arms_leave_the_same_gradients():
    problem = build(TINY, CPU)
    task = flow_tasks.training(problem, CPU)
    gradients = {}
    for arm in ("ours", flow_tasks.REFERENCE):
        task.arms[arm]()
        gradients[arm] = [p.grad.clone() for p in problem.stack.parameters()]
    for own, other in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)


def test_bare_layers_train_every_matrix():
    problem = build(TINY, CPU)
    flow_tasks.training(problem, CPU).arms[flow_tasks.BARE]()
    matrices = [m.weight for m in problem.stack.modules() if isinstance(m, torch.nn.Linear)]
    assert all(matrix.grad is not None and bool(matrix.grad.any()) for matrix in matrices)


def test_guidance_changes_the_samples():
    problem = build(TINY, CPU)
    plain, guided = (flow_tasks.sampling(problem, w, CPU).arms["ours"]() for w in (0.0, 2.0))
    assert (plain - guided).abs().max() > 1e-3


def test_arms_that_compute_different_things_are_refused():
    arms = {"ours": lambda: torch.zeros(2), "other": lambda: torch.ones(2)}
    task = Task(name="nonsense", arms=arms, equal={"other": 1e-3})
    with pytest.raises(AssertionError, match="nonsense: ours and other differ"):
        measure.run(task, 1, CPU)


def test_a_ratio_is_taken_within_each_round(monkeypatch):
    # The last round runs at a third of the speed, which ratios do not know; the first, of the
    # warm-up, does not count.
    clock = iter_of([0, 9, 0, 1, 0, 2, 0, 1, 0, 3, 0, 6])
    monkeypatch.setattr(measure.time, "process_time", clock)
    monkeypatch.setattr(measure.time, "perf_counter", iter_of([0, 1] * 6))
    arms = {"ours": lambda: torch.zeros(1), "other": lambda: torch.zeros(1)}
    (row,) = measure.run(Task(name="slow", arms=arms), 2, CPU)
    assert (row.cpu.low, row.cpu.median, row.cpu.high) == (2, 2, 2)
    assert (row.seconds, row.other_seconds) == (4, 2)
    assert row.wall.median == 1


def iter_of(values):
    numbers = iter(values)
    return lambda: next(numbers)


def test_one_batch_or_one_for_each_side():
    with pytest.raises(UserError, match=r"--batch .*got \[1, 2, 3\]"):
        main(["--sides", "2", "3", "--batch", "1", "2", "3"])


def test_a_child_prints_what_it_adds(capsys):
    main(["--quick", "--child", f"{GUIDED}/reference"])
    assert float(capsys.readouterr().out) >= 0
