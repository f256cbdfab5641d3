"""Joins the two files of VQAv2, questions and annotations."""

import json
from pathlib import Path
from typing import Any

from pretzel.errors import UserError

_KEPT = ("multiple_choice_answer", "answer_type", "question_type")


def read_vqa_files(
    questions: str | Path, annotations: str | Path
) -> dict[str, list[dict[str, Any]]]:
    """Return the questions about each image with all their answers, by ``image_id`` as text.

    The entries, in the order of the file of questions, are those that
    :func:`datamodules.decoding.questions.parse_questions` takes as ``questions``: objects with
    ``question``, ``answers`` (ten texts in VQAv2), ``multiple_choice_answer``, ``answer_type`` and
    ``question_type``.

    Raises:
        UserError: If a file cannot be read or is not of this form, or a question has no annotation.
    """
    annotated = {}
    for entry in _entries(annotations, "annotations"):
        try:
            answers = [answer["answer"] for answer in entry["answers"]]
            annotated[entry["question_id"]] = {"answers": answers} | {
                name: entry[name] for name in _KEPT if name in entry
            }
        except (KeyError, TypeError):
            raise _wrong(annotations, "question_id and answers of {'answer': ...}") from None
    by_image: dict[str, list[dict[str, Any]]] = {}
    for entry in _entries(questions, "questions"):
        try:
            number, image, question = entry["question_id"], entry["image_id"], entry["question"]
            is_annotated = number in annotated
        except (KeyError, TypeError):
            raise _wrong(questions, "question_id, image_id and question") from None
        if not is_annotated:
            raise UserError(
                f"annotations {str(annotations)!r} have no question_id {number}, which "
                f"{str(questions)!r} has"
            )
        by_image.setdefault(str(image), []).append({"question": question} | annotated[number])
    return by_image


def _entries(path: str | Path, field: str) -> list[Any]:
    try:
        content = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{field} {str(path)!r} do not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{field} {str(path)!r} cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get(field), list):
        raise UserError(f"{str(path)!r} is no file of VQAv2 {field}: it has no list {field!r}")
    entries: list[Any] = content[field]
    return entries


def _wrong(path: str | Path, needed: str) -> UserError:
    return UserError(f"each entry of {str(path)!r} must have {needed}, as in VQAv2")
