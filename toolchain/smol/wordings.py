"""How each kind of question may be worded: most wordings are for all splits, some for validation or test alone.

A wording takes what the question is about: a `place` ("top left"), a `thing` ("the dog") with the `verb` that goes with
it, a `phrase` ("a dog"), what is counted (`many`: "red digits").
"""

from dataclasses import dataclass

from vlmc.toolchain.demo.glyphs import Split


@dataclass(frozen=True)
class Wordings:
    """The wordings of one kind of question; training never sees those of the other two splits."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[tuple[str, ...], ...]:
        """Return the groups that a split draws from, each as often as the other: what training sees, and its own."""
        return (self.train,) if split == "train" else (self.train, getattr(self, split))


WORDINGS: dict[str, Wordings] = {
    "name": Wordings(
        (
            "What is in the {place} corner?",
            "What do you see at the {place}?",
            "Which thing is {place}?",
            "What does the {place} part of the image show?",
            "Name the thing in the {place} corner.",
            "Tell me what is at the {place}.",
            "What is {place}?",
        ),
        ("Look at the {place} corner: what is there?",),
        ("What can be found in the {place} corner?", "Please name what you see {place}."),
    ),
    "sort": Wordings(
        (
            "What kind of thing is in the {place} corner?",
            "What sort of thing is at the {place}?",
            "Which kind of thing do you see {place}?",
            "What type of thing is {place}?",
            "Tell me the kind of thing in the {place} corner.",
        ),
        ("Name the type of thing at the {place}.",),
        ("Say what kind of thing is {place}.", "Of what kind is the thing in the {place} corner?"),
    ),
    "colour": Wordings(
        (
            "What colour is {thing}?",
            "Which colour does {thing} have?",
            "What is the colour of {thing}?",
            "Tell me the colour of {thing}.",
            "In which colour is {thing} written?",
        ),
        ("Name the colour of {thing}.",),
        ("Say what colour {thing} is.", "Which colour is {thing}?"),
    ),
    "where": Wordings(
        (
            "Where {verb} {thing}?",
            "In which corner {verb} {thing}?",
            "Where in the image {verb} {thing}?",
            "Tell me where {thing} {verb}.",
            "Find {thing}.",
            "Which corner shows {thing}?",
        ),
        ("Where do you see {thing}?",),
        ("Which corner holds {thing}?", "Say where {thing} {verb}."),
    ),
    "count": Wordings(
        (
            "How many {many} are there?",
            "How many {many} do you see?",
            "Count the {many}.",
            "What is the number of {many}?",
            "How many {many} does the image show?",
        ),
        ("Tell me how many {many} there are.",),
        ("How many {many} can be seen?", "Give the number of {many} in the image."),
    ),
    "exists": Wordings(
        (
            "{Verb} there {phrase} in the image?",
            "Can you see {phrase}?",
            "Do you see {phrase} anywhere?",
            "Does the image show {phrase}?",
            "Does the image contain {phrase}?",
        ),
        ("Can {phrase} be seen here?",),
        ("Does this picture have {phrase} in it?", "Do you find {phrase} in the image?"),
    ),
    "caption": Wordings(
        (
            "Describe the image.",
            "What does the image show?",
            "Write a caption for this image.",
            "What do you see?",
            "Tell me what is in the image.",
        ),
        ("Give a description of this image.",),
        ("Please describe what you see.", "What is in this picture?"),
    ),
}
"""The kinds of question and their wordings."""
