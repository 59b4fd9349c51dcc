"""Probes are the same ones each time, and of unlike shapes."""

from vlmc.toolchain.deploy.probes import SHAPES, pair, probes


def test_shapes_are_taken_by_turns_and_images_are_the_same_each_time() -> None:
    first, second = probes(5), probes(5)
    assert [sample.load_image().size for sample in first] == [*SHAPES, SHAPES[0]]
    assert [sample.load_image().tobytes() for sample in first] == [sample.load_image().tobytes() for sample in second]
    assert len({sample.load_image().resize((8, 8)).tobytes() for sample in first}) == 5


def test_the_pair_has_two_shapes() -> None:
    assert len({image.size for image in pair().load_images()}) == 2
