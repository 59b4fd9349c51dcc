"""Answer questions from your own program: `python examples/embed.py artifact image.png "what is the blue digit?"`.

Needs `pip install '.[cpu]'` alone, no torch. The model may be shared by several threads.
"""

import sys

from vlmc.runtime import InputError, load


def main(artifact: str, image: str, question: str) -> None:
    """Stream one answer."""
    with load(artifact) as model:
        for piece in model.stream(image, question):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except InputError as error:
        sys.exit(str(error))
