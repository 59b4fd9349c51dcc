"""The emoji: enough of them, each with a name of its own and an image."""

from collections import Counter

import numpy as np

from vlmc.toolchain.smol.emoji import EMOJI, TILE, sprite


def test_there_are_many_and_no_name_means_two() -> None:
    assert len(EMOJI) >= 120
    for what in ("name", "character"):
        assert max(Counter(getattr(emoji, what) for emoji in EMOJI).values()) == 1


def test_names_are_words_that_people_say() -> None:
    for emoji in EMOJI:
        assert len(emoji.name.split()) <= 2, emoji
        assert emoji.name == emoji.name.lower()
        assert emoji.phrase.split(maxsplit=1)[0] in ("a", "an", "some")


def test_every_emoji_has_an_image_of_its_own() -> None:
    images = [sprite(number, TILE).tobytes() for number in range(len(EMOJI))]
    assert len(set(images)) == len(EMOJI)
    for number in range(len(EMOJI)):
        opacity_HW = np.asarray(sprite(number, 24))[:, :, 3]
        assert float((opacity_HW > 128).mean()) > 0.1, EMOJI[number]
