"""Every command, every block of Python and of YAML on the pages works, and names what exists.

Light commands run as they stand; training runs in small here, and in full in
``test_pages_in_full.py``; some run in the tests of what they belong to (:data:`ELSEWHERE`).
"""

import ast
import importlib
import itertools
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from doc_pages import ROOT, blocks, commands, pages, words_of
from PIL import Image

from pretzel.__main__ import main
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.cli.parser import Parser
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import Config, fold, read

KNOWN = {"sh", "bash", "python", "yaml", "json", "text"}
NOT_RUN = "# not run in the tests: "
RUNS = ("fit", "validate", "test", "predict")
ELSEWHERE = {  # run in the tests of what they belong to
    ("pip", "install"): "tests/examples/test_causal_conv.py",
    ("pytest", "--laws"): "tests/testing/test_plugin.py",
    ("pretzel", "init"): "tests/packaging/test_init.py",
    ("pretzel", "check"): "tests/testing/test_check.py",
    ("pretzel", "evaluate"): "tests/api/test_evaluate.py",
    ("pretzel", "data", "preview"): "tests/datamodules/test_preview.py",
    ("pretzel", "metrics", "canary"): "tests/callbacks/test_canaries.py",
    ("pretzel", "import"): "tests/interop/test_import.py",
    ("pretzel", "diff"): "tests/ablation/test_run.py",
    ("pretzel", "export"): "tests/ablation/test_run.py",
    ("pretzel", "reproduce"): "tests/ablation/test_run.py",
    ("pretzel", "compare"): "tests/ablation/report/test_compare.py",
    ("pretzel", "grid", "status"): "tests/ablation/test_status_table.py",
    ("pretzel", "grid", "board"): "tests/ablation/report/test_tensorboard.py",
    ("pretzel", "grid", "why"): "tests/ablation/test_run.py",
    ("pretzel", "grid", "adopt"): "tests/ablation/test_run.py",
    ("pretzel", "grid", "evaluate"): "tests/ablation/test_run.py",
    ("pretzel", "grid", "rerun"): "tests/ablation/test_run.py",
    ("pretzel", "grid", "gc"): "tests/ablation/test_run.py",
    ("pretzel", "grid", "run"): "tests/ablation/test_run.py",
}


def joined(words):
    return " ".join(words)


def is_parsed_by_lightning(words):
    return words[0] == "pretzel" and words[1] in RUNS


PRETZEL = [words for words in commands("sh", "bash") if words[0] == "pretzel"]
RUN = [words for words in commands() if words[0] == "pretzel"]
SAMPLES = [w for w in RUN if w[1] == "sample" and "imported" not in joined(w)]
DIRECT = [
    w
    for w in RUN
    if "--version" in w or w[:3] == ("pretzel", "grid", "schema") or "docs/results" in joined(w)
]
DATA = [w for w in RUN if w[1] == "data" and w[2] != "preview"]
DIRECT = [w for w in DIRECT if w[:3] != ("pretzel", "grid", "run")]
GRIDS = sorted(
    {word for words in commands("sh", "bash") if words[:2] == ("pretzel", "grid")
     for word in words if word.endswith(".yaml")}
)  # fmt: skip


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_the_fence_says_what_happens_to_a_block(block):
    assert block.language in KNOWN or block.language.startswith("{"), block.language
    if block.language == "bash":
        first = block.text.splitlines()[0]
        assert first.startswith(NOT_RUN)
        assert len(first) > len(NOT_RUN)
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    if block.language == "json":
        json.loads(block.text)


class Parsed(Exception):
    """A command's parser has taken its arguments."""


@pytest.mark.parametrize(
    "words",
    [w for w in PRETZEL if not is_parsed_by_lightning(w) and w[1] not in ("check", "--version")],
    ids=joined,
)
def test_a_command_has_these_options(words, monkeypatch):
    real = Parser.parse_known_args

    def parse(self, args=None, namespace=None):
        result = real(self, args, namespace)
        if namespace is None:  # the parser of the whole command line, not of a subcommand
            assert not [word for word in result[1] if not word.startswith("--model")]
            raise Parsed
        return result

    monkeypatch.setattr(Parser, "parse_known_args", parse)
    with pytest.raises(Parsed):
        main([*words[1:]] if ">" not in words else [*words[1 : words.index(">")]])


@cache
def parser():
    return ParseOnlyCLI()


FILES = {
    tuple(after for option, after in itertools.pairwise(words) if option == "-c"): words
    for words in PRETZEL
    if is_parsed_by_lightning(words)
}


@pytest.mark.parametrize("files", FILES, ids=joined)
def test_configurations_resolve(files, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = list(FILES[files])
    extra = [word for word in words[2:] if word not in files and word != "-c"]
    if extra and "--ckpt_path" not in extra:
        assert main([*words[1:], "--print_config"]) == 0
    else:
        parser().parse("fit", fold([read(file) for file in files]))


def test_the_longer_run_trains(there, tmp_path, shrunk):
    files = ("ablations/base/easy_vqa.yaml", "ablations/base/long.yaml")
    assert files in FILES
    options = [part for file in (*files, shrunk(tmp_path)) for part in ("-c", str(file))]
    assert main(["fit", *options]) == 0


def test_every_command_is_run_somewhere():
    for words, block in commands().items():
        if words[0] == "make":
            makefile = (ROOT / "Makefile").read_text()
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), block
        elif words[:2] == ("python", "-m"):
            assert (ROOT / "tests" / "benchmarks").is_dir()
        elif not (words in SAMPLES + DIRECT + DATA or is_parsed_by_lightning(words)):
            if words[:3] == ("pretzel", "grid", "plan"):
                continue  # below
            where = ELSEWHERE.get(words[:3]) or ELSEWHERE.get(words[:2])
            if words[:2] == ("pretzel", "sample"):
                where = "tests/interop/test_import_samples.py"
            assert where is not None, f"{block}: no test runs: {joined(words)}"
            named = words[2] if words[1] in ("grid", "data", "metrics") else words[1]
            assert named in (ROOT / where).read_text(), f"{where} does not run: {joined(words)}"


def as_it_runs_here(words):
    """Return a light command with the checkpoint that is there, in the place of a longer run's."""
    if ">" in words:
        words = words[: words.index(">")]
    if "--ckpt_path" in words:
        at = words.index("--ckpt_path") + 1
        words = (*words[:at], "last.ckpt", *words[at + 1 :])
    if "ablations/base/turns.yaml" in words:  # its VLM is trained by the commands before
        at = words.index("ablations/base/turns.yaml")
        words = (*words[: at - 1], *words[at + 1 :])
    return words


@pytest.mark.parametrize(
    "words", dict.fromkeys(as_it_runs_here(words) for words in SAMPLES + DIRECT), ids=joined
)
def test_a_light_command_runs(words, there, tmp_path, capsys):
    out = ("--out", str(tmp_path / "out")) if words[1] == "sample" else ()
    assert main([*words[1:], *out]) == 0
    assert capsys.readouterr().out


def test_the_tools_for_data_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "val2014"):
        Path(folder).mkdir()
        for number in range(12):
            Image.new("RGB", (40, 40), (number * 20, 0, 0)).save(f"{folder}/COCO_{number:03d}.jpg")
            Path(f"{folder}/COCO_{number:03d}.txt").write_text(f"red {number}")
    Path("captions.csv").write_text("path,caption\nCOCO_003.jpg,three\n")
    asked = {"question_id": 1, "image_id": 3, "question": "how red?"}
    answered = asked | {"answers": [{"answer": "60"}] * 10}
    Path("questions.json").write_text(json.dumps({"questions": [asked]}))
    Path("annotations.json").write_text(json.dumps({"annotations": [answered]}))
    Path("source.yaml").write_text("{class_path: datamodules.Folder, init_args: {train: photos}}")
    for words in DATA:
        assert main([*words[1:]]) == 0, joined(words)
        assert capsys.readouterr().out
    assert {path.name for path in Path("inspection").iterdir()} >= {"inspect.html"}


@pytest.mark.parametrize(
    "file",
    # tests/ablations/test_configs.py plans all that are shipped
    [file for file in GRIDS if file.split("/")[0] != "ablations" or "quickstart" in file],
)
def test_a_grid_plans(file, there, capsys):
    assert main(["grid", "plan", file]) == 0
    assert "seed" in capsys.readouterr().out


PYTHON = {page: [b for b in blocks("python") if b.page == page] for page in pages()}


@pytest.mark.parametrize("page", [page for page, found in PYTHON.items() if found])
def test_python_runs(page, there):
    names = {"__name__": "__page__"}
    for block in PYTHON[page]:
        code = "\n" * block.line + block.text
        exec(compile(code, page, "exec"), names)


YAML = {str(block): block for block in blocks("yaml")}


@pytest.mark.parametrize("where", YAML)
def test_yaml_parses_and_resolves(where, there):
    values = yaml.safe_load(YAML[where].text)
    if not isinstance(values, dict) or not values.keys() & {"axes", "model", "data", "trainer"}:
        return
    path = there / "ablations" / "of_a_page.yaml"
    path.write_text(YAML[where].text)
    if "axes" in values:
        assert plan_grid(load(path)).compared
    else:
        config = fold([read(there / "ablations/base/easy_vqa.yaml"), read(path)])
        assert isinstance(config, Config)
        parser().parse("fit", config)


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_python_and_short(path):
    """The build of the documentation runs it."""
    cells = re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", path.read_text(), re.M | re.S)
    assert cells
    for cell in cells:
        ast.parse(re.sub(r"^(---\n.*?^---|:[^\n]*)\n", "", cell, flags=re.M | re.S))


INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TOPS = "pretzel|datamodules|callbacks|ablations|benchmarks|examples|tests|docs"


def exists(dotted):
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            if not hasattr(found, name):
                return name in getattr(found, "__annotations__", {})
            found = getattr(found, name)
        return True
    return False


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_names_and_paths_exist(page):
    text = re.sub(r"```.*?```", "", pages()[page], flags=re.S)
    for code in INLINE.findall(text):
        if re.fullmatch(rf"(?:{TOPS})/[\w./-]*", code):
            assert (ROOT / code).exists() or "docs/_build" in code, f"{page}: {code}"
        elif re.fullmatch(r"(?:pretzel|datamodules|callbacks)(?:\.\w+)+", code):
            assert exists(code), f"{page}: {code}"
    for code in re.findall(r"class_path: ((?:pretzel|datamodules|callbacks)[\w.]*)", pages()[page]):
        assert exists(code), f"{page}: {code}"


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", pages()[page], flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            folder = (ROOT / page).parent
            assert (folder / target).exists(), f"{page}: {target}"


OTHERS = ("operator torchvision::nms does not exist",)  # what other libraries say


def test_the_sentences_of_troubleshooting_are_those_of_the_code():
    files = [path for name in ("pretzel", "callbacks", "datamodules")
             for path in sorted((ROOT / name).rglob("*.py"))]  # fmt: skip
    code = re.sub(r"\"\s*\n\s*f?\"", "", "".join(path.read_text() for path in files))
    for line in pages()["docs/troubleshooting.md"].splitlines():
        for sentence in INLINE.findall(line) if line.startswith("`") else ():
            for part in re.split(r"\.\.\.|\b[A-Z]{1,4}\b|\[|\]|:LINE|'|\?", sentence):
                part = part.strip(" :;()")
                assert len(part) < 7 or part in code or sentence in OTHERS, part


def test_words_are_read_as_a_shell_does():
    assert words_of("a 'b c'  # no\n\nd \\\n  e\n") == [["a", "b c"], ["d", "e"]]


def test_the_modules_of_the_reference_exist(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    packages = importlib.import_module("generated_reference").PACKAGES
    for name, (_, modules) in packages.items():
        for module in modules:
            assert module == "*" or importlib.import_module(f"{name}.{module}")
        assert f"api/{name}\n" in pages()["docs/reference/api.md"]
