"""`pretzel data inspect`: right counts, what is skipped named, texts shown as they are."""

import io
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from datamodules import Shards
from datamodules.tools.cards import CARD, Card, Run, draw_cards
from datamodules.tools.inspect import inspect
from datamodules.tools.inspect_page import page, write_report
from datamodules.tools.inspect_terminal import show
from datamodules.tools.inspect_texts import bars, fact_rows, size_bars
from pretzel.__main__ import main
from pretzel.errors import UserError

EVIL = "<script>alert('x')</script> & \x1b[31mred"


@pytest.fixture
def web(write_shard, encoded):
    """Twelve samples as the web has them: four cannot serve at 16 pixels."""
    members = {}
    for number in range(12):
        key, size = f"{number:03d}", (20 + number, 40)
        members[f"{key}.jpg"] = encoded((number * 20, 0, 0), size, "jpeg")
        if number == 9:
            members[f"{key}.npy"] = b"not needed beside the jpg"
        fields = {"caption": "two words" if number % 2 else EVIL}
        if number < 6:
            fields["questions"] = [["is it?", "yes"], {"question": "what?", "answer": "a <b>"}]
        members[f"{key}.json"] = json.dumps(fields).encode()
    members["001.jpg"] = b"<html>not found</html>"
    members["003.json"] = b"{"
    members["005.json"] = json.dumps({"questions": 5}).encode()
    members["007.jpg"] = encoded(size=(9, 40))
    return write_shard("web.tar", members)


def test_counts_are_those_of_the_samples(web):
    (summary,) = inspect(Shards(web), image_size=16, upscale=False).values()
    assert (summary.samples, summary.skipped.total()) == (8, 4)
    assert summary.skipped == {"damaged": 2, "unknown form": 1, "too small": 1}
    assert {sample.key for sample in summary.named["damaged"]} == {"001", "003"}
    assert summary.caption_words == {2: 2, len(EVIL.split()): 6}
    assert summary.questions == {2: 3, 0: 5}
    assert summary.answers == {"yes": 3, "a <b>": 3}
    assert summary.sizes == {(20 + n, 40): 1 for n in (0, 2, 4, 6, 8, 9, 10, 11)}
    rows = {row[0]: row[1] for row in fact_rows({"train": summary})}
    assert rows["shorter side, pixels"] == "20 to 31, median 26"
    assert rows["with questions"] == "3 (38%)"
    assert rows["answers yes or no"] == "3 (50%)"
    assert [(bar.label, bar.count) for bar in size_bars(summary)] == [("17 to 32 pixels", 8)]
    assert [bar.label for bar in bars(Counter("abcdefghijklmn"))] == [*"abcdefghijkl", "others"]


def test_answers_beyond_those_that_are_counted_keep_their_share(web, monkeypatch):
    monkeypatch.setattr("datamodules.tools.summary.MOST_ANSWERS", 1)
    (summary,) = inspect(Shards(web), image_size=16, upscale=False).values()
    rows = {row[0]: row[1] for row in fact_rows({"train": summary})}
    assert rows["different answers"] == "1 or more"
    assert rows["answers yes or no"] == "3 (50%)"
    shown = bars(summary.answers, summary.uncounted_answers)
    assert [(bar.label, bar.share) for bar in shown] == [("yes", 0.5), ("others", 0.5)]


def test_order_chunks_and_processes_change_nothing(web, monkeypatch):
    whole = inspect(Shards(web), image_size=16)
    monkeypatch.setattr("datamodules.tools.inspect._CHUNK", 3)
    pieces = inspect(Shards(web), image_size=16, num_workers=2)
    assert fact_rows(whole) == fact_rows(pieces)
    keys = [[pick.key for pick in one["train"].picks] for one in (whole, pieces)]
    assert keys[0] == keys[1]
    assert inspect(Shards(web), limit=3)["train"].samples == 2


def test_texts_are_shown_and_never_run(web, tmp_path):
    summaries = inspect(Shards(web), image_size=16, upscale=False)
    html = page("web.tar <&", summaries)
    assert "<script>" not in html.lower()
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp;" in html
    assert "a &lt;b&gt;" in html
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "default-src 'none'" in html
    file = io.StringIO()
    show(summaries, Console(file=file, width=100))
    assert "skipped 1 (unknown form), such as 005 in" in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()
    paths = write_report(tmp_path / "look", "web.tar", summaries)
    assert [path.name for path in paths] == ["sheet-train.png", "inspect.html"]
    with Image.open(paths[0]) as sheet:
        assert sheet.width > 4 * CARD
        reds = np.array(sheet)[..., 0].astype(int) - np.array(sheet)[..., 1]
        assert (reds > 150).mean() > 0.02  # the pictures


def test_cards_tell_roles_apart():
    runs = [Run(text="a word", style=style) for style in ("context", "target", "dropped", "note")]
    drawn = [np.array(draw_cards([Card(parts=(run,))], 1)) for run in runs]
    assert len({image.tobytes() for image in drawn}) == 4
    green = (drawn[1][..., 1].astype(int) - drawn[1][..., 0] > 20).sum()
    assert green > 1000
    long = draw_cards([Card(parts=(Run(text="x" * 3000 + " y" * 3000),))], 3)
    assert long.width == CARD + 16
    assert long.height < 300


def test_the_command_takes_the_size_of_the_configuration(web, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "data:\n  init_args:\n    image_size: 16\n    source:\n"
        f"      class_path: datamodules.Shards\n      init_args: {{train: '{web}'}}\n"
    )
    assert main(["data", "inspect", "-c", "c.yaml", "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert "skipped 1 (too small)" in told
    assert (tmp_path / "inspection" / "inspect.html").is_file()
    with pytest.raises(UserError, match="image_size must be at least 1, not 0"):
        inspect(Shards(web), image_size=0)
