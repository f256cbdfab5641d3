"""Documents of several lengths, with images in several places."""

from pretzel.sequence.document import (
    Document,
    Image,
    Text,
    caption_document,
    question_document,
    without_past,
)

SHORT = (
    caption_document("a red circle"),
    caption_document("a very small blue triangle, perhaps"),
    question_document([("what color is the shape?", "red"), ("is it a circle?", "yes")]),
    caption_document("a shape", dropped=True),
    caption_document("a gray rectangle"),
)
STORY = Document(
    key="story",
    segments=(
        *SHORT[0].segments,
        Text(content="what shape is it?"),
        Text(content="circle", role="target"),
        Text(content="a blue circle"),
        Image(),
        Text(content="yes", role="target"),
    ),
)
SAYING = Document(
    key="saying", segments=(Text(content="a red"), Text(content="circle", role="target"))
)
LONG = (SHORT[0], SHORT[3], STORY, SAYING, SHORT[2], without_past(STORY, 1), SHORT[1])
