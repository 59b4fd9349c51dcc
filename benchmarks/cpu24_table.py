"""What cpu24.py and cpu24_decoders.py found, in Markdown: tables and bars for docs/cpu.md, a sentence for the README."""

from collections.abc import Iterable, Sequence

from decoders.llama import LLAMA
from decoders.measuring import (
    DECODE,
    INT4,
    INT8,
    ORT,
    PACKED,
    PACKED_BF16,
    PACKED_INT8,
    PEERS,
    PREFILL,
    SPARE,
    TORCH,
    WHOLE_INT8,
)
from decoders.shapes import SHAPES
from pages import DOCS, fill
from products.contestants import (
    BITS,
    DENSE,
    HALF,
    INTEGER,
    OPENVINO,
    OPENVINO_BF16,
    OPENVINO_INT8,
    OPENVINO_SPARSE,
    OURS,
    ROUNDED,
    WHOLE,
)
from report import RESULTS, Report, Row, targets

PAGE = DOCS / "cpu.md"
TIME, SPEED, SHARE, PREDICTED = "time of a product", "speed-up", "share of the memory's speed", "predicted speed-up"
PRODUCTS = (
    ORT,
    HALF,
    TORCH,
    OPENVINO,
    OPENVINO_BF16,
    OPENVINO_INT8,
    OPENVINO_SPARSE,
    INTEGER,
    *BITS,
    DENSE,
    *OURS,
    ROUNDED,
    WHOLE,
)
"""The columns of products; those that nothing was measured of are left out."""
DECODERS = (ORT, TORCH, *PEERS, *LLAMA, PACKED, PACKED_BF16, PACKED_INT8, WHOLE_INT8, INT8, INTEGER, INT4)
"""The rows of a decoder; peers that nothing was measured of are left out."""
BYTES, DECODING_SHARE = "bytes of the products' weights", "share of the memory's speed, decoding"


def fill_page() -> None:
    """Bring docs/cpu.md up to date with the results that there are."""
    for name, content in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            fill(PAGE, name, content(Report.read(path)))


def table(found: Report) -> str:
    """Return the page's part on products."""
    head = (
        "Milliseconds, medians of interleaved rounds; in brackets how many times as fast as ONNX Runtime fp32, the median "
        f"of the rounds' ratios. Kernels: {found.settings['instruction_set']}."
    )
    return "\n\n".join([head, _products(found), targets(found), *_left_out(found), _origin(found)])


def decoders(found: Report) -> str:
    """Return the page's part on whole decoders."""
    head = (
        "As above. MatMulNBits has int8 activations (`accuracy_level` 4); its weights are dense and rounded to nearest. "
        "ONNX Runtime's attention writes each token into the cache that is there, for every graph. "
        f"Kernels: {found.settings['instruction_set']}."
    )
    return "\n\n".join([head, _decoders(found), targets(found), *_left_out(found), _origin(found)])


TABLES = {"cpu24": table, "cpu24_decoders": decoders, "cpu24_decoders_large": decoders, "cpu24_avx2": table}
"""The page's tables by their results; a CPU with AVX2 alone, and a decoder that leaves no memory for all, have their own."""


def verdict(found: Report) -> str:
    """Return the README's sentences, from whole decoders."""
    said = []
    for name in _measured_decoders(found):
        decode = {who: _value(found, name, who, f"speed-up, {DECODE}") for who in DECODERS}
        spread = _spread(found, name, PACKED, f"speed-up, {DECODE}")
        prefill = {who: _value(found, name, who, f"speed-up, {PREFILL}") for who in (PACKED, WHOLE_INT8, INTEGER)}
        share = {who: _number(found.find(f"{name}: {who}", DECODING_SHARE)) for who in (PACKED, ORT)}
        said.append(
            f"a decoder of {name}'s sizes with random 2:4 weights, packed in bf16, decodes {decode[PACKED]} times (spread "
            f"{spread}) as fast as dense fp32 in ONNX Runtime, half the bits included, and reads its weights at "
            f"{share[PACKED]} of the speed at which this machine reads memory, the limit (dense fp32: {share[ORT]}); "
            f"in int8, activations too, {decode[WHOLE_INT8]} times; "
            f"ONNX Runtime's own dense int8 reaches {decode[INT8]} times (MatMulNBits) and "
            f"{decode[INTEGER]} (MatMulInteger), "
            f"int4 {decode[INT4]}. A prompt of 600 tokens is done {prefill[PACKED]} times as fast in bf16, "
            f"{prefill[WHOLE_INT8]} times in int8, {prefill[INTEGER]} times by MatMulInteger"
        )
        if peers := [f"{who.removeprefix('llama.cpp ')} {decode[who]} times" for who in LLAMA if decode[who]]:
            said[-1] += f"; llama.cpp, dense, decodes {', '.join(peers)} as fast"
    where = f"With {found.settings['instruction_set'].upper()} kernels and {_threads(found)}, "
    told = f"{where}{'; '.join(said)}. [All of it](docs/cpu.md#measured). {_origin(found)}"
    return f"{told}\n\n{targets(found)}"


def _left_out(found: Report) -> list[str]:
    names = [row.name for row in found.rows if row.value is None]
    return [f"Not measured: {'; '.join(names)}."] if names else []


def _products(found: Report) -> str:
    sizes = [(*size, rows) for size in found.settings["sizes"] for rows in found.settings["rows"]]
    names = [f"{i} to {o}, {rows} {'row' if rows == 1 else 'rows'}" for i, o, rows in sizes]
    products = [who for who in PRODUCTS if any(found.find(f"{name}: {who}", TIME) for name in names)]
    lines = _header(["inputs to outputs", *products, "predicted for 2:4 bf16", "2:4 bf16: share of memory's speed"])
    for name in names:
        cells = [_cell(found, f"{name}: {who}", TIME, SPEED) for who in products]
        packed = f"{name}: {PACKED}"
        lines.append(_line([name, *cells, _number(found.find(packed, PREDICTED), "x"), _number(found.find(packed, SHARE))]))
    return "\n".join(lines)


def _decoders(found: Report) -> str:
    lines = _header(["whole decoder", "weights, MB", "prefill of 600", "each of 64 tokens", "share of memory's speed"])
    for name in _measured_decoders(found):
        for who in DECODERS:
            at = f"{name}: {who}"
            if who in SPARE and not found.find(at, DECODE):
                continue
            phases = [_cell(found, at, phase, f"speed-up, {phase}") for phase in (PREFILL, DECODE)]
            ends = [_number(found.find(at, BYTES)), *phases, _number(found.find(at, DECODING_SHARE))]
            lines.append(_line([at, *ends]))
    return "\n".join(lines)


def _measured_decoders(found: Report) -> list[str]:
    names = [shape.name for shape in SHAPES.values()]
    return [name for name in names if found.find(f"{name}: {PACKED}", DECODE)]


def _value(found: Report, decoder: str, who: str, metric: str) -> str:
    return _number(found.find(f"{decoder}: {who}", metric))


def _spread(found: Report, decoder: str, who: str, metric: str) -> str:
    row = found.find(f"{decoder}: {who}", metric)
    return "" if row is None or row.spread is None else f"{row.spread:g}"


def _cell(found: Report, name: str, time: str, gain: str) -> str:
    gained = found.find(name, gain)
    return _number(found.find(name, time)) + (f" ({_number(gained)}x)" if gained else "")


def _number(row: Row | None, unit: str = "") -> str:
    return "" if row is None or row.value is None else f"{row.value:g}{unit}"


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), "|---|" + "---:|" * (len(names) - 1)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _threads(found: Report) -> str:
    count = found.settings["threads"]
    return "one thread" if count == 1 else f"{count} threads"


def _origin(found: Report) -> str:
    return f"Measured on {found.machine}, {found.date}: `{found.command}`."
