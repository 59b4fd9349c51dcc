"""Whole decoders with random packed 2:4 weights on the CPU, beside ONNX Runtime's fp32, int8 and int4, and torch in bf16.

A prompt of 600 tokens, then 64 tokens one by one, everyone in turns. A ratio is the median of a round's ONNX Runtime fp32
over the contestant, more than 1 is faster. With --threads 1 times are the processor's, else the wall clock's.
"""

import os
import sys
from collections.abc import Sequence

from cpu24_table import fill_page
from decoders.measuring import SPARE
from decoders.reporting import measure
from decoders.shapes import SHAPES
from report import arguments, command, finish, prepare, report

from vlmc.runtime.kernels.native import instruction_sets

NAME = "cpu24_decoders"


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--decoders", nargs="+", choices=list(SHAPES), help="which [default: all; 135M if --quick]")
    parser.add_argument("--rounds", type=int, help="how often each is measured [default: 3]")
    parser.add_argument(
        "--without", nargs="+", choices=SPARE, metavar="NAME", default=(), help="who is left out: " + ", ".join(SPARE)
    )
    chosen = parser.parse_args(given)
    prepare(chosen)
    threads, names = chosen.threads or os.cpu_count() or 1, chosen.decoders or list(SHAPES)[: 1 if chosen.quick else None]
    rounds = chosen.rounds or (1 if chosen.quick else 3)
    rows, bars = measure([SHAPES[name] for name in names], threads, rounds, chosen.without)
    settings = {"decoders": names, "rounds": rounds, "threads": threads, "instruction_set": instruction_sets()[0]}
    finish(report(command(NAME, given), rows, bars, settings), NAME, chosen)
    if not chosen.quick and chosen.out is None:
        fill_page()


if __name__ == "__main__":
    main(sys.argv[1:])
