"""Completion of the shell, and what the command says about itself."""

import subprocess
import tomllib
from pathlib import Path

import pytest

import pretzel
from pretzel.__main__ import _COMMANDS, main

ROOT = Path(__file__).parents[2]


def test_the_version_has_one_source(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pretzel {pretzel.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gr", "grid"),
        ("fit --trainer.max_s", "--trainer.max_steps"),
        ("grid run --eng", "--engine"),
        ("sample --quest", "--question"),
        ("data pack --val", "--val-share"),
        ("import starflow --softp", "--softplus"),
    ],
)
def test_bash_completes_commands_and_options(words, expected, script):
    words = ["pretzel", *words.split()]
    ask = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1};"
    done = subprocess.run(
        ["bash", "-c", f'{ask} _shtab_pretzel; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [expected], done.stderr


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from pretzel.cli.completion import completion

    path = tmp_path_factory.mktemp("completion") / "pretzel.bash"
    path.write_text(completion("bash"))
    return path


def test_zsh_knows_all_commands(capsys):
    assert main(["--print-completion", "zsh"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("#compdef pretzel")
    assert all(name in shown for name in _COMMANDS)


@pytest.mark.parametrize("shell", ["", "fish"])
def test_other_shells_are_refused(shell, capsys):
    assert main(["--print-completion", *shell.split()]) == 2
    assert f"--print-completion must be bash or zsh, got '{shell}'" in capsys.readouterr().err
