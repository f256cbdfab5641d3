"""Each of GenEval's six tasks is right and wrong where the published rules say so."""

import json

import pytest

from callbacks.geneval.detectors import Detection
from callbacks.geneval.prompts import TASKS, read_prompts
from callbacks.geneval.rules import is_right, keep, relations
from pretzel.errors import UserError


def at(x, y, name="bench", score=0.95, side=10):
    """Return an object of which the centre is at (x, y)."""
    half = side / 2
    return Detection(name=name, score=score, box=(x - half, y - half, x + half, y + half))


def wanted(name, count=1, **rest):
    return {"class": name, "count": count, **rest}


def write(path, *lines):
    file = path / "evaluation_metadata.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def line(tag, *include, exclude=()):
    return {"tag": tag, "include": include, "exclude": exclude, "prompt": f"a photo, {tag}"}


def judged(tmp_path, task, objects, *include, exclude=(), colours=()):
    (prompt,) = read_prompts(write(tmp_path, line(task, *include, exclude=list(exclude))))
    return is_right(prompt, keep(objects, 0.3, 1.0), lambda found, name: list(colours))


def test_objects_are_there(tmp_path):
    dog, bench = at(10, 10, "dog"), at(40, 10)
    assert judged(tmp_path, "single_object", [bench], wanted("bench"))
    assert judged(tmp_path, "single_object", [bench, bench], wanted("bench"))  # no upper bound
    assert not judged(tmp_path, "single_object", [dog], wanted("bench"))
    assert not judged(tmp_path, "single_object", [at(1, 1, score=0.3)], wanted("bench"))
    both = [wanted("bench"), wanted("dog")]
    assert judged(tmp_path, "two_object", [dog, bench], *both)
    assert not judged(tmp_path, "two_object", [bench, bench], *both)


def test_numbers_are_exact_where_more_are_excluded(tmp_path):
    rule = {"exclude": [wanted("bench", 4)]}
    for number, right in ((2, False), (3, True), (4, False)):
        found = [at(20 * i, 5) for i in range(number)]
        assert judged(tmp_path, "counting", found, wanted("bench", 3), **rule) is right


def test_colours_of_the_most_certain_objects(tmp_path):
    red = wanted("bench", color="red")
    assert judged(tmp_path, "colors", [at(5, 5)], red, colours=["red"])
    assert not judged(tmp_path, "colors", [at(5, 5)], red, colours=["blue"])
    asked = []
    (prompt,) = read_prompts(write(tmp_path, line("colors", red)))
    objects = [at(5, 5, score=0.5), at(30, 5, score=0.9)]
    assert is_right(prompt, keep(objects, 0.3, 1.0), lambda o, n: asked.extend([*o, n]) or ["red"])
    assert asked == [objects[1], "bench"]
    twice = wanted("bench", 2, color="red")
    assert not judged(tmp_path, "colors", objects, twice, colours=["red", "blue"])


def test_each_object_has_its_own_colour(tmp_path):
    include = [wanted("bench", color="red"), wanted("dog", color="black")]
    (prompt,) = read_prompts(write(tmp_path, line("color_attr", *include)))
    found = keep([at(5, 5), at(30, 5, "dog")], 0.3, 1.0)
    assert is_right(prompt, found, lambda o, n: ["red" if n == "bench" else "black"])
    assert not is_right(prompt, found, lambda o, n: ["black" if n == "bench" else "red"])


def test_places(tmp_path):
    include = [wanted("bench"), wanted("dog", position=["left of", 0])]
    left, right = at(10, 50), at(60, 50)
    dogs = [at(one.box[0] + 5, 50, "dog") for one in (left, right)]
    assert judged(tmp_path, "position", [right, dogs[0]], *include)
    assert not judged(tmp_path, "position", [left, dogs[1]], *include)
    assert not judged(tmp_path, "position", [dogs[0]], *include)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((-20, 0), {"left of"}),
        ((20, 0), {"right of"}),
        ((0, -20), {"above"}),
        ((0, 20), {"below"}),
        ((20, 20), {"right of", "below"}),  # (20 - 2) / 28.3 = 0.64
        ((20, 9), {"right of"}),
        ((0, 0), set()),
        ((4, 0), {"right of"}),
        ((3.9, 0), set()),  # (3.9 - 2) / 3.9 < 1/2
        ((4, 4), set()),
    ],
)
def test_relations_have_a_margin_of_a_tenth_of_both_sizes(offset, expected):
    # (4, 0): (4 - 2) / 4 is 1/2, which is not above it: a little further it is
    x, y = offset
    assert relations(at(50 + x * 1.001, 50 + y * 1.001), at(50, 50)) == expected


def test_overlapping_objects_of_one_class_count_once_where_asked_to():
    objects = [at(10, 10, score=0.4), at(11, 10), at(11, 10, "dog"), at(30, 10)]
    assert [one.score for one in keep(objects, 0.3, 1.0)["bench"]] == [0.95, 0.95, 0.4]
    found = keep(objects, 0.3, 0.5)
    assert [len(found[name]) for name in ("bench", "dog")] == [2, 1]


def test_lines_that_are_no_prompts_are_named(tmp_path):
    good = line("colors", wanted("bench", color="red"))
    assert [p.tag for p in read_prompts(write(tmp_path, *(good | {"tag": t} for t in TASKS)))] == [
        *TASKS
    ]
    for bad, reason in (
        ([], "line 2: must be a GenEval prompt as JSON"),
        (good | {"tag": "size"}, "tag: Input should be 'single_object'"),
        (line("counting"), "include: Tuple should have at least 1 item"),
        (line("counting", {"count": 1}), "include.0.class: Field required"),
        (line("counting", wanted("bench", 0)), "include.0.count"),
        (line("colors", wanted("bench", color="mauve")), "include.0.color"),
        (line("position", wanted("a"), wanted("b", position=["near", 0])), "include.1.position"),
        (line("position", wanted("b", position=["left of", 0])), "must name an earlier one, got 0"),
    ):
        with pytest.raises(UserError, match=reason):
            read_prompts(write(tmp_path, good, bad))
    with pytest.raises(UserError, match=r"GenEval: metadata .* must have a prompt a line, got"):
        read_prompts(write(tmp_path))
    with pytest.raises(
        UserError, match=r"GenEval: metadata .*nowhere' cannot be read \(No such file"
    ):
        read_prompts(str(tmp_path / "nowhere"))
