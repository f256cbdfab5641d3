"""Conversations as files: pictures, what was said in JSON and as text, one sheet."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture

from pretzel.cli.sample.script import Step
from pretzel.errors import UserError
from pretzel.files.atomic import write_json, write_text
from pretzel.generation.conversation import Conversation, Trained, conversation_with
from pretzel.generation.pictures import save_png, sheet
from pretzel.generation.record import described, sampling_record, work_record
from pretzel.generation.token_choice import Writing

Print = Callable[[str], object]


def hold(
    module: Trained,
    scripts: Sequence[Sequence[Step]],
    *,
    room: int,
    max_tokens: int,
    writing: Writing,
    seed: int,
    tell: Print,
) -> list[Conversation]:
    """Hold conversations, telling text as it comes.

    Those that begin with the same image share it: it is read once.

    Args:
        module: A trained module.
        scripts: What they consist of.
        room: Positions of the longest.
        max_tokens: Tokens of an answer at most.
        writing: How tokens are chosen.
        seed: Seed of noise and text.
        tell: Receives pieces of the transcript.
    """
    held = []
    begun: dict[int, Conversation] = {}
    for script in scripts:
        start = 0
        if script[0].picture is not None:
            image = id(script[0].picture)
            if image not in begun:
                begun[image] = conversation_with(module, writing=writing, seed=seed, room=room)
                begun[image].show(script[0].picture)
            said = "".join(step.text for step in script)
            conversation, start = begun[image].fork(said), 1
            tell("image\n")
        else:
            conversation = conversation_with(module, writing=writing, seed=seed, room=room)
        for step in script[start:]:
            _take(conversation, step, max_tokens, tell)
        held.append(conversation)
    return held


def _take(conversation: Conversation, step: Step, max_tokens: int, tell: Print) -> None:
    if step.kind == "say":
        conversation.say(step.text)
        tell(f"say: {step.text}\n")
    elif step.kind == "image":
        assert step.picture is not None
        conversation.show(step.picture)
        tell("image\n")
    elif step.kind == "draw":
        conversation.draw()
        tell("draw\n")
    else:
        tell("answer: ")
        free = step.kind == "continue"
        going = conversation.continue_freely if free else conversation.stream
        for piece in going(max_tokens):
            tell(piece if isinstance(piece, str) else "\ndraw\nanswer: ")
        tell("\n")


def write_conversations(
    module: Trained, held: Sequence[Conversation], folder: Path, *, columns: int
) -> None:
    """Write conversations into a folder.

    It receives the pictures, ``transcript.json`` (a list of conversations, each a list of turns),
    ``transcript.txt``, ``grid.png`` where there are pictures, and ``sampling.json``.

    Args:
        module: What they were held with.
        held: The conversations.
        folder: Where to.
        columns: Pictures in a row of the sheet.

    Raises:
        UserError: If it cannot be written.
    """
    shown: list[Picture] = []
    labels: list[str] = []
    names: dict[int, str] = {}
    told: list[list[dict[str, str]]] = []
    lines: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for conversation in held:
            turns = []
            before = ""
            for turn in conversation.turns:
                if turn.picture is None:
                    before = turn.text
                    turns.append({turn.kind: turn.text})
                    lines.append(f"{turn.kind}: {turn.text}")
                    continue
                name = names.get(id(turn.picture), "")
                if not name:
                    name = names[id(turn.picture)] = f"{len(names):05d}.png"
                    save_png(turn.picture, folder / name)
                    shown.append(turn.picture)
                    labels.append(before if turn.kind == "draw" else turn.kind)
                turns.append({turn.kind: name})
                lines.append(f"{turn.kind}: {name}")
            lines.append("")
            told.append(turns)
        text = json.dumps(told, indent=1, ensure_ascii=False)
        write_text(folder / "transcript.json", f"{text}\n")
        write_text(folder / "transcript.txt", "\n".join(lines))
        if shown:
            save_png(sheet(shown, labels, columns), folder / "grid.png")
        write_json(folder / "sampling.json", _record(module, held))
    except OSError as error:
        raise UserError(f"--out: {folder}: cannot be written ({error.strerror})") from error


def _record(module: Trained, held: Sequence[Conversation]) -> dict[str, Any]:
    record = sampling_record(module.sampler, module.guidance, module.denoiser)
    images = [work for conversation in held for work in conversation.work]
    return record | {
        "writing": described(held[0].writing),
        "seed": held[0].seed,
        "batches": [{"images": 1, **work_record(work)} for work in images],
    }
