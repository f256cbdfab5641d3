"""A folder of conversations: pictures, the turns in JSON and as text, a sheet, how sampled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pretzel.cli.sample.image_folder import COLUMNS, write_readable
from pretzel.errors import UserError
from pretzel.files.atomic import write_json, write_text
from pretzel.generation.conversation import Conversation
from pretzel.generation.sampling_record import described, sampling_record, work_record
from pretzel.generation.turn import Turn
from pretzel.media.sheet import save_png, sheet

Print = Callable[[str], object]


def follow_scripts(
    begin: Conversation, scripts: Sequence[Sequence[Turn]], *, max_tokens: int, echo: Print
) -> list[Conversation]:
    """Hold a conversation by each script; those that begin with one image read it once.

    Each is a fork of ``begin``, which has not begun. ``echo`` receives the transcript in pieces,
    text as it comes.
    """
    conversations = []
    behind_image: dict[int, Conversation] = {}
    for script in scripts:
        picture, steps = script[0].picture, script
        if picture is None:
            conversation = begin.fork()
        else:
            if id(picture) not in behind_image:
                behind_image[id(picture)] = begin.fork()
                behind_image[id(picture)].show(picture)
            text = "".join(step.text for step in script)
            conversation, steps = behind_image[id(picture)].fork(text), script[1:]
            echo("image\n")
        for step in steps:
            _take(conversation, step, max_tokens, echo)
        conversations.append(conversation)
    return conversations


def _take(conversation: Conversation, step: Turn, max_tokens: int, echo: Print) -> None:
    if step.kind == "say":
        conversation.say(step.text)
        echo(f"say: {step.text}\n")
    elif step.kind == "image":
        assert step.picture is not None
        conversation.show(step.picture)
        echo("image\n")
    elif step.kind == "generate":
        conversation.generate()
        echo("generate\n")
    else:
        echo("answer: ")
        is_free = step.kind == "continue"
        write = conversation.continue_freely if is_free else conversation.stream
        for piece in write(max_tokens):
            echo(piece if isinstance(piece, str) else "\ngenerate\nanswer: ")
        echo("\n")


def write_conversations(conversations: Sequence[Conversation], folder: Path) -> None:
    """Write conversations with one model into a folder.

    It receives the pictures, ``transcript.json`` (a list of conversations, each a list of turns),
    ``transcript.txt``, ``grid.png`` where there are pictures, and ``sampling.json``.

    Raises:
        UserError: If it cannot be written.
    """
    medium = conversations[0].batch.model.latent.medium
    on_sheet: list[Any] = []
    labels: list[str] = []
    names: dict[int, str] = {}
    transcripts: list[list[dict[str, str]]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for conversation in conversations:
            turns = []
            text_before = ""
            for turn in conversation.turns:
                if turn.picture is None:
                    text_before = turn.text
                    turns.append({turn.kind: turn.text})
                    continue
                name = names.get(id(turn.picture))
                if name is None:
                    name = names[id(turn.picture)] = f"{len(names):05d}.{medium.suffix}"
                    medium.save(turn.picture, folder / name)
                    on_sheet.append(turn.picture)
                    labels.append(text_before if turn.kind == "generate" else turn.kind)
                turns.append({turn.kind: name})
            transcripts.append(turns)
        write_readable(folder / "transcript.json", transcripts)
        lines = [
            "".join(f"{kind}: {value}\n" for turn in turns for kind, value in turn.items())
            for turns in transcripts
        ]
        write_text(folder / "transcript.txt", "\n".join(lines))
        if on_sheet:
            save_png(sheet([*map(medium.picture, on_sheet)], labels, COLUMNS), folder / "grid.png")
        write_json(folder / "sampling.json", _record(conversations))
    except OSError as error:
        raise UserError(f"--out: {folder}: cannot be written ({error.strerror})") from error


def _record(conversations: Sequence[Conversation]) -> dict[str, Any]:
    batch = conversations[0].batch  # all are sampled alike
    images = [work for conversation in conversations for work in conversation.work]
    return sampling_record(batch.sampler, batch.guidance, batch.denoiser) | {
        "writing": described(batch.writing),
        "seed": batch.seed,
        "batches": [{"images": 1, **work_record(work)} for work in images],
    }
