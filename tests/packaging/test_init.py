"""`pretzel init`: the project that it writes works, also from a wheel; nothing is spoilt."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from pretzel.__main__ import main
from pretzel.cli.init import write_project
from pretzel.errors import UserError
from pretzel.runs.config.overlay import fold, read

ROOT = Path(__file__).parents[2]
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "shape-lab"]) == 0
    return tmp_path / "shape-lab"


def test_a_project_is_named_after_its_folder(project, capsys):
    assert (project / "shape_lab" / "block.py").is_file()
    files = [path for path in project.rglob("*") if path.is_file()]
    assert len(files) == 14
    for path in files:
        text = path.read_text()
        assert "my_project" not in text, path
        assert "ablations/" not in text, path  # what it needs lies in it
    about = tomllib.loads((project / "pyproject.toml").read_text())
    assert about["project"]["name"] == "shape_lab"
    assert [path.name for path in project.parent.iterdir()] == ["shape-lab"]


def test_its_grids_plan_with_its_block(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["grid", "plan", "grid.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "running_mean" in shown
    config = read("grid.yaml").values["axes"]["shallow"]["running_mean"]
    (part,) = config.values()
    assert part["class_path"] == "shape_lab.RunningMeanBlock"
    for module in [name for name in sys.modules if name.startswith("shape_lab")]:
        del sys.modules[module]


def test_its_block_obeys_the_laws(project):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("taken", r"taken exists already"),
        ("1st", r"1st: the name must be that of a package, such as my_project"),
        ("class", r"class: the name must be that of a package"),
        ("torch", r"torch: a package torch is installed already"),
        ("callbacks", r"callbacks: a package callbacks is installed already"),
        ("file/project", r"file/project: cannot be written \(Not a directory\)"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    Path("file").write_text("")
    with pytest.raises(UserError, match=expected) as refused:
        write_project(Path(name))
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "taken"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"p: cannot be written \(No space left on device\)"):
        write_project(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def commands(readme):
    """Return the commands of all fenced sh blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line]


def shorten(project):
    """Make all runs of a project short: base, and the links of the chain."""
    small = fold([read(project / "base.yaml"), read(SHRINK)]).values
    small["trainer"]["callbacks"] = [
        one
        for one in small["trainer"]["callbacks"]
        if one["class_path"].rpartition(".")[2] not in ("Generation", "SampleGrid", "VQAAccuracy")
    ]
    (project / "base.yaml").write_text(yaml.safe_dump(small))
    for name in ("s1", "s2", "s3"):
        stage = fold([read(project / "stages" / f"{name}.yaml"), read(SHRINK)]).values
        stage["trainer"]["callbacks"] = small["trainer"]["callbacks"]
        (project / "stages" / f"{name}.yaml").write_text(yaml.safe_dump(stage))
    own = fold([read(project / "own_data.yaml"), read(SHRINK)]).values
    own["trainer"]["callbacks"] = small["trainer"]["callbacks"]
    (project / "own_data.yaml").write_text(yaml.safe_dump(own))
    short = {"trainer": {"max_steps": 2}}
    (project / "stages" / "short.yaml").write_text(yaml.safe_dump(short))
    for name in ("grid", "stages"):
        grid = yaml.safe_load((project / f"{name}.yaml").read_text())
        grid |= {"metrics": {"test/nll_excess_bits_per_dim": "min"}, "seeds": [0]}
        (project / f"{name}.yaml").write_text(yaml.safe_dump(grid))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_its_readme_from_an_installed_wheel(tmp_path):
    """Build, install beside the libraries that are here, and work in an empty folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):  # so that the build leaves nothing in our tree
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path)]
    subprocess.run([*pip, *build, str(tmp_path / "source")], check=True)
    (wheel,) = tmp_path.glob("pretzel_starflow-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    yamls = {name for name in listed if name.startswith("ablations/")}
    assert yamls <= names  # one source, and all of it
    assert not any(name.startswith(("tests/", "docs/", "examples/")) for name in names)
    site = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", "-t", str(site), str(wheel)], check=True
    )

    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    script = "import sys; from pretzel.__main__ import main; sys.exit(main())"
    pretzel = [sys.executable, "-P", "-c", script]
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(words, folder):
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    origin = "import pretzel, callbacks; print(pretzel.__file__, callbacks.__file__)"
    assert run([sys.executable, "-P", "-c", origin], empty).count(str(site)) == 2
    run([*pretzel, "init", "my_lab"], empty)
    project = empty / "my_lab"
    readme = (project / "README.md").read_text()
    shorten(project)
    for command in commands(readme):
        if command[0] == "pretzel":
            run([*pretzel, *command[1:]], project)
        elif command == ["pytest"]:
            run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)
        else:
            assert command == ["pip", "install", "pytest"]
    assert (project / "runs" / "grid" / "compare.html").is_file()
    (python,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert "attention" in run([sys.executable, "-P", "-c", python], project)
