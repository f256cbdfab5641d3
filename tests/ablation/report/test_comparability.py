"""What has no common scale is marked, not ranked, and not compared to the baseline."""

import pytest
from made_grid import write_config, write_plan, write_result

from pretzel.ablation.report.comparability import is_likelihood, judge
from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.grid_report import Report
from pretzel.ablation.report.table import result_table

NLL, FID, ACCURACY = "test/nll_excess_bits_per_dim", "test/fid_judge", "test/right"
METRICS = {NLL: "min", FID: "min", ACCURACY: "max"}


def config(latent="pretzel.latent.Autoencoder", *, noise=0.3, penalty=0.0, size=64, denoiser=0.3):
    """The parts of a resolved configuration that matter, and some that must not."""
    part = {"class_path": latent, "init_args": {"patch_size": 2, "noise": noise}}
    pretzel = {"class_path": "pretzel.model.Pretzel", "init_args": {"latent": part}}
    return {
        "model": {
            "class_path": "pretzel.training.PretzelModule",
            "init_args": {
                "pretzel": pretzel,
                "latent_norm_penalty": penalty,
                "denoiser": {"class_path": "my.Denoiser", "init_args": {"noise": denoiser}},
            },
        },
        "data": {"class_path": "my.Data", "init_args": {"image_size": size, "batch_size": 16}},
    }


def comparable(judged):
    """Return the arms that may be compared with the baseline, a."""
    return {arm for arm, scale in judged.scales.items() if scale == judged.scales["a"]}


def grid(folder, configs, *, changes=None, metrics=None):
    """A grid of one seed whose arms have these configurations."""
    changes = {arm: (changes or {}).get(arm, []) for arm in configs}
    write_plan(folder, changes, metrics=METRICS, seeds=[0])
    for i, (arm, values) in enumerate(configs.items()):
        found = {name: 0.1 * (i + 1) for name in METRICS} | (metrics or {}).get(arm, {})
        if values is not None:
            write_config(folder, arm, 0, **values)
        write_result(folder, arm, 0, found)
    return folder


def best(folder, metric):
    return [row.arm for row in result_table(load(folder)).rows if row.entries[metric].best]


def test_equal_spaces_are_compared(tmp_path):
    grid(tmp_path, {"a": config(), "b": config(penalty=0.1, denoiser=0.1)})
    assert judge(load(tmp_path))[NLL].everywhere
    assert best(tmp_path, NLL) == ["a"]
    assert "must not be compared" not in Report(tmp_path, "").text("markdown")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (config(noise=0.1), "model.pretzel.latent.noise: 0.3 (a, c), 0.1 (b)"),
        (config("my.Pixels", noise=0.1), "model.pretzel.latent: Autoencoder (a, c), Pixels (b)"),
        (config(size=32), "data.image_size: 64 (a, c), 32 (b)"),
    ],
)
def test_likelihoods_of_different_data_are_not(tmp_path, other, reason):
    grid(tmp_path, {"a": config(), "b": other, "c": config()})
    judged = judge(load(tmp_path))
    assert judged[NLL].reason == reason
    assert comparable(judged[NLL]) == {"a", "c"}
    assert judged[FID].everywhere
    assert judged[ACCURACY].everywhere
    assert best(tmp_path, NLL) == []
    entries = {row.arm: row.entries[NLL] for row in result_table(load(tmp_path)).rows}
    assert entries["b"].difference is None
    assert entries["c"].difference is not None  # of the baseline's space
    for form in ("markdown", "terminal", "latex", "html"):
        text = " ".join(Report(tmp_path, "").text(form).split())
        assert "must not be compared across these arms" in text, form
    assert "not comparable" in Report(tmp_path, "").text("html")


def test_an_arm_without_a_configuration_is_judged_by_its_changes(tmp_path):
    arms = {"a": config(), "b": None, "c": None}
    changes = {
        "b": ["s1: model.pretzel.latent: Autoencoder -> Pixels"],
        "c": ["model.latent_norm_penalty: 0.0 -> 0.1"],
    }
    judged = judge(load(grid(tmp_path, arms, changes=changes)))
    assert comparable(judged[NLL]) == {"a", "c"}
    assert judged[NLL].reason == "model.pretzel.latent: Autoencoder (a, c), Pixels (b)"


def test_seeds_do_not_look_like_different_spaces(tmp_path):
    """Weights of a stage have the seed in their path: arms are compared at one seed."""
    write_plan(tmp_path, {"a": [], "b": ["model.x: 1 -> 2"]}, metrics=METRICS, seeds=[0, 1])
    for arm in "ab":
        for seed in (0, 1):
            values = config()
            latent = values["model"]["init_args"]["pretzel"]["init_args"]["latent"]["init_args"]
            latent["weights"] = f"runs/stages/autoencoder-seed{seed}-1234/weights.safetensors"
            write_config(tmp_path, arm, seed, **values)
    assert judge(load(tmp_path))[NLL].everywhere


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({f"{FID}_n": 250.0}, "n: 500 (a), 250 (b)"),
        ({f"{FID}_n_real": 99.0}, "n_real: 1000 (a), 99 (b)"),
    ],
)
def test_distances_need_equal_numbers(tmp_path, facts, reason):
    counts = {f"{FID}_n": 500.0, f"{FID}_n_real": 1000.0}
    grid(tmp_path, {"a": None, "b": None}, metrics={"a": counts, "b": counts | facts})
    judged = judge(load(tmp_path))
    assert judged[FID].reason == reason
    assert judged[ACCURACY].everywhere
    assert best(tmp_path, FID) == []
    assert best(tmp_path, ACCURACY) == ["b"]


def test_recorded_facts_must_agree(tmp_path):
    grid(tmp_path, {"a": None, "b": None, "c": None})
    usual = {"n": 500, "extractor": "judge 1a2b", "resize": "area 64"}
    facts = {"a": usual, "b": usual | {"extractor": "judge 9f9f"}, "c": None}
    for arm, known in facts.items():
        write_result(tmp_path, arm, 0, {FID: 1.0}, facts={FID: known} if known else {})
    judged = judge(load(tmp_path))[FID]
    assert judged.reason == "extractor: judge 1a2b (a), judge 9f9f (b)"
    assert comparable(judged) == {"a", "c"}  # what is not known is not held against it
    assert judged.facts == {"n": "500", "resize": "area 64"}
    assert f"{FID}: n 500, resize area 64" in Report(tmp_path, "").text("markdown")


def test_how_images_were_sampled_is_shown_and_no_bar(tmp_path):
    grid(tmp_path, {"a": None, "b": None, "c": None})
    for arm, weight in {"a": 1, "b": 3, "c": 3}.items():
        facts = {FID: {"n": 500, "guidance": f"Linear(weight={weight})", "ema": "decay 0.99"}}
        write_result(tmp_path, arm, 0, {FID: 1.0}, facts=facts)
    judged = judge(load(tmp_path))[FID]
    assert judged.everywhere
    assert judged.reason == ""
    assert judged.facts["guidance"] == "Linear(weight=1) (a), Linear(weight=3) (b, c)"
    assert judged.facts["ema"] == "decay 0.99"


def test_facts_that_differ_between_seeds_are_a_difference(tmp_path):
    write_plan(tmp_path, {"a": [], "b": ["x: 1 -> 2"]}, metrics={FID: "min"}, seeds=[0, 1])
    for arm in "ab":
        for seed in (0, 1):
            n = 250.0 if (arm, seed) == ("b", 1) else 500.0
            write_result(tmp_path, arm, seed, {FID: 1.0, f"{FID}_n": n})
    assert judge(load(tmp_path))[FID].reason == "n: 500 (a), 250 and 500 (b)"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test/nll_excess_bits_per_dim", True),
        ("val/bits_per_dim_dequantised", True),
        ("test/log_likelihood", True),
        ("train/nll_flow", True),
        ("train/nll_text", False),
        ("test/vqa", False),
        ("test/fid_judge", False),
    ],
)
def test_names_of_likelihoods(name, said):
    assert is_likelihood(name) == said
