r"""Reads questions and their answers, in the forms in which they are published.

``key.json`` holds one of

* ``questions``: a list of entries, each a pair ``[question, answer]`` or an object with
  ``question`` and ``answer``, or ``answers``: a list of texts, or of objects with ``answer`` as in
  VQAv2, whose ``multiple_choice_answer`` (or ``answer``) is then the target where there is one;
  An object may name its ``answer_type`` and ``question_type``, as VQAv2 does, and ``choices``, a
  list of texts;
* such an object itself: ``question`` and ``answer`` or ``answers`` beside the caption;
* ``conversations``, as LLaVA writes them: ``{"from": "human", "value": "<image>\nwhat is it?"}``
  and ``{"from": "gpt", "value": ...}`` in turn; or a list of several, all about the image.

Whatever is none of these is never read as something else.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.decoding.excerpt import excerpt
from datamodules.decoding.visible_text import visible
from datamodules.sample import Unusable

QUESTIONS_FIELD = "questions"
CONVERSATIONS_FIELD = "conversations"
ENTRY_FIELDS = (
    "question",
    "answer",
    "answers",
    "multiple_choice_answer",
    "answer_type",
    "question_type",
    "choices",
)
"""Fields of a question that stands in ``key.json`` itself."""
_IMAGE_TOKEN = "<image>"
_FORMS = (
    "known are [question, answer], {'question': ..., 'answer': ...}, {'question': ..., 'answers': "
    "[...]}, and conversations of {'from': 'human' or 'gpt', 'value': ...}"
)


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """A question with all its answers.

    Attributes:
        question: The question.
        answer: The target: the most frequent answer, the first of equally frequent ones.
        answers: All answers that were given to it, as often as they were given.
        answer_type: Name of the kind of answer, as the data gives it; empty if it does not.
        question_type: Name of the kind of question, likewise.
        choices: Texts that it may be answered with, in order; empty if the data has none.
    """

    question: str
    answer: str
    answers: tuple[str, ...]
    answer_type: str = ""
    question_type: str = ""
    choices: tuple[str, ...] = ()


def parse_questions(fields: Mapping[str, Any]) -> tuple[AskedQuestion, ...]:
    """Return the questions of what a ``key.json`` holds; none where it has no such field.

    Raises:
        Unusable: If they are of no known form, or a question or answer is empty.
    """
    questions = fields.get(QUESTIONS_FIELD)
    conversations = fields.get(CONVERSATIONS_FIELD)
    asked: list[AskedQuestion] = []
    if questions is not None:
        if not isinstance(questions, list):
            raise _unknown(QUESTIONS_FIELD, questions)
        asked += [_entry(f"{QUESTIONS_FIELD}[{i}]", entry) for i, entry in enumerate(questions)]
    elif any(fields.get(name) is not None for name in ("answer", "answers")) and (
        fields.get("question") is not None
    ):
        asked.append(_entry("question", fields))
    if isinstance(conversations, list) and all(isinstance(one, list) for one in conversations):
        for number, one in enumerate(conversations):
            asked += _conversation(f"{CONVERSATIONS_FIELD}[{number}]", one)
    elif conversations is not None:
        asked += _conversation(CONVERSATIONS_FIELD, conversations)
    return tuple(asked)


def _entry(place: str, entry: Any) -> AskedQuestion:  # noqa: ANN401
    match entry:
        case [question, answer]:
            return _asked(place, question, [answer], None)
        case {"question": question, "answers": list(answers)} if answers:
            texts = [one.get("answer") if isinstance(one, dict) else one for one in answers]
            target = entry.get("multiple_choice_answer") or entry.get("answer")
            return _with_more(_asked(place, question, texts, target), entry)
        case {"question": question, "answer": answer}:
            return _with_more(_asked(place, question, [answer], None), entry)
    raise _unknown(place, entry)


def _with_more(asked: AskedQuestion, entry: Mapping[str, Any]) -> AskedQuestion:
    """Add types and choices that an entry names; training does without, so none is refused."""
    answer, question = (
        visible(text) if isinstance(text := entry.get(name), str) else ""
        for name in ("answer_type", "question_type")
    )
    named = entry.get("choices")
    texts = named if isinstance(named, list) and all(isinstance(one, str) for one in named) else []
    choices = tuple(map(visible, texts))
    choices = choices if all(choices) else ()
    return replace(asked, answer_type=answer, question_type=question, choices=choices)


def _asked(
    place: str, question: object, answers: Sequence[object], target: object
) -> AskedQuestion:
    texts = [text for answer in answers if (text := _text(place, answer))]
    asked = _text(place, question)
    if not texts or not asked:
        raise Unusable("unknown form", f"{place}: question or answer is empty; {_FORMS}")
    named = "" if target is None else _text(place, target)
    most_frequent = Counter(texts).most_common(1)[0][0]
    return AskedQuestion(question=asked, answer=named or most_frequent, answers=tuple(texts))


def _text(place: str, value: object) -> str:
    """Return a text without space around it; a whole number counts as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _unknown(place, value)
    return visible(value)


def _conversation(name: str, turns: Any) -> Iterator[AskedQuestion]:  # noqa: ANN401
    if not isinstance(turns, list) or len(turns) % 2:
        raise _unknown(name, turns)
    num_images = 0
    for place in range(0, len(turns), 2):
        match turns[place : place + 2]:
            case [{"from": "human", "value": str(asked)}, {"from": "gpt", "value": str(answer)}]:
                num_images += asked.count(_IMAGE_TOKEN)
                if num_images > 1 or _IMAGE_TOKEN in answer:
                    raise Unusable(
                        "unknown form",
                        f"{name} show more than one {_IMAGE_TOKEN}: write them as segments",
                    )
                question = asked.replace(_IMAGE_TOKEN, " ")
                yield _asked(f"{name}[{place}]", question, [answer], None)
            case pair:
                raise _unknown(f"{name}[{place}]", pair)


def _unknown(place: str, value: object) -> Unusable:
    return Unusable("unknown form", f"{place} is {excerpt(value)}; {_FORMS}")
