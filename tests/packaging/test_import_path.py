"""A user's own folders named like ours: neither taken nor broken, and one sentence about them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAB = ROOT / "tests" / "ablation" / "lab.py"
RAISES = 'raise SystemExit("a folder of the user has been imported")\n'
BASE = {
    "trainer": {
        "max_steps": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [{"class_path": "callbacks.NonFiniteGuard"}],
    },
    "model": {
        "class_path": "lab.LeastSquares",
        "init_args": {"features": {"class_path": "lab.Linear"}, "lr": 0.01},
    },
    "data": {"class_path": "lab.Line", "init_args": {"rows": 8}},
}
GRID = {
    "base": "base.yaml",
    "axes": {"rate": {"slow": {}, "fast": {"model.init_args.lr": 0.02}}},
    "seeds": [0],
    "baseline": {"rate": "slow"},
    "metrics": {"test/loss": "min"},
}


@pytest.fixture
def project(tmp_path):
    """A folder with a part of the user's, and three names of ours that must not be imported."""
    shutil.copy(LAB, tmp_path)
    for name in ("callbacks", "pretzel"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(RAISES)
    (tmp_path / "datamodules.py").write_text(RAISES)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    return tmp_path


def pretzel(folder, *words, path=()):
    """Run the console script in a folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)])}
    environment.pop("PYTHONSAFEPATH", None)
    script = "import sys; from pretzel.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("engine", ["forks", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_grid_uses_our_packages_and_the_users_part(project, engine):
    done = pretzel(project, "grid", "run", "grid.yaml", "--slots", "1", "--engine", engine)
    logs = [path.read_text()[-1000:] for path in project.glob("runs/**/log.txt")]
    assert done.returncode == 0, (done.stderr, logs)
    for name in ("pretzel", "callbacks", "datamodules.py"):
        assert f"pretzel: note: ./{name} is not imported, because pretzel has" in done.stderr


def test_a_folder_that_is_no_package_of_ours_is_not_mentioned(tmp_path):
    (tmp_path / "callbacks").mkdir()  # pictures of callbacks, perhaps
    done = pretzel(tmp_path, "grid", "status", "none.yaml")
    assert "note" not in done.stderr


def test_a_package_before_ours_is_refused(project, tmp_path):
    other = tmp_path / "elsewhere"
    shutil.copytree(project / "callbacks", other / "callbacks")
    done = pretzel(project, "fit", "-c", "base.yaml", path=[other])
    assert done.returncode == 2
    assert f"{other / 'callbacks'} hides the package callbacks of pretzel" in done.stderr


@pytest.mark.slow
def test_the_module_finds_itself_in_the_users_folder(project):
    """`python -m pretzel` where only the callbacks are named like ours."""
    shutil.rmtree(project / "pretzel")
    done = subprocess.run(
        [sys.executable, "-m", "pretzel", "fit", "-c", "base.yaml"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "./callbacks is not imported" in done.stderr
