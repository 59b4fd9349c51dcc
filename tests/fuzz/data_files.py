"""Spoiling data sets, each form in its own way: lines, tables, archives, and the images beside them."""

import io
import json
import os
import tarfile
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.image_files import spoil_image
from tests.fuzz.spoiling import TEXTS, Spoiled, edit, spoil_bytes, spoil_json, value

_IMAGES = {".png", ".jpg"}
_PLACES = (
    "/dev/zero",
    "../../outside/canary.txt",
    "/etc/passwd",
    "pipe.png",
    "",
    "x" * 300,
    "a\nb.png",
    "\ud800.png",
    ".",
    "http://x/y.png",
)


def spoil_data(random: Random, folder: Path) -> str:
    """Spoil one file of a data set's folder; say what."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    tables = [path for path in files if path.suffix not in _IMAGES]
    path = random.choice(tables if tables and random.random() < 0.7 else files)
    if random.random() < 0.1:
        return _replace(random, path)
    content, what = _spoil(random, path)
    path.write_bytes(content)
    return f"{path.name}: {what}"


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    """Write a table of such columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)


def _spoil(random: Random, path: Path) -> Spoiled:
    content = path.read_bytes()
    if path.suffix in _IMAGES:
        return spoil_image(random, content)
    if path.suffix == ".jsonl":
        return _spoil_lines(random, content)
    if path.suffix == ".json":
        return spoil_json(random, content)
    if path.suffix == ".tar" and random.random() < 0.7:
        return _spoil_archive(random, content)
    if path.suffix == ".parquet" and random.random() < 0.7:
        return _spoil_table(random, content)
    if path.suffix == ".csv" and random.random() < 0.7:
        return _spoil_cells(random, content)
    return spoil_bytes(random, content)


def _spoil_lines(random: Random, content: bytes) -> Spoiled:
    lines = content.split(b"\n")
    number = random.randrange(len(lines))
    if random.random() < 0.3:
        try:
            row = json.loads(lines[number])
        except ValueError:
            return spoil_bytes(random, content)
        row[next((key for key in ("image", "file_name") if key in row), "image")] = random.choice([*_PLACES, value(random)])
        lines[number] = json.dumps(row).encode("utf-8", "surrogatepass")
        return b"\n".join(lines), f"another image in line {number + 1}"
    lines[number], what = spoil_json(random, lines[number])
    return b"\n".join(lines), f"line {number + 1}, {what}"


def _spoil_cells(random: Random, content: bytes) -> Spoiled:
    lines = content.split(b"\n")
    number = random.randrange(len(lines))
    cells = lines[number].split(b",")
    cells[random.randrange(len(cells))] = random.choice([*_PLACES, *TEXTS]).encode("utf-8", "surrogatepass")
    lines[number] = b",".join(cells)
    return b"\n".join(lines), f"another cell in line {number + 1}"


def _spoil_archive(random: Random, content: bytes) -> Spoiled:
    """Write the archive again with one member renamed, retyped or spoiled, or one more."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as read:
        members = [(member, (read.extractfile(member) or io.BytesIO()).read()) for member in read.getmembers()]
    member, inner = random.choice(members)
    do = random.randrange(3)
    if do == 0:
        member.name = random.choice(
            ["../../outside/x.png", "/etc/x.png", "", "x" * 400 + ".png", "a\nb.png", "\udcff.json", "some/000"]
        )
    elif do == 1:
        member.type = random.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
        member.linkname = random.choice(["/dev/zero", "../../outside/canary.txt", member.name])
    else:
        spoil = spoil_json if member.name.endswith(".json") else spoil_image
        spoiled, _ = spoil(random, inner)
        members = [(one, spoiled if one is member else kept) for one, kept in members]
    with tarfile.open(fileobj=buffer, mode="w") as written:
        for one, kept in members:
            one.size = len(kept) if one.isreg() else 0
            written.addfile(one, io.BytesIO(kept))
    return buffer.getvalue(), f"a member {('renamed', 'of another type', 'spoiled')[do]}"


def _spoil_table(random: Random, content: bytes) -> Spoiled:
    """Write the table again with a column of other values, or of another name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    number = random.randrange(table.num_columns)
    name, rows = table.column_names[number], table.num_rows
    column = random.choice(
        [
            pa.array([random.choice([place for place in _PLACES if place.isprintable()]) for _ in range(rows)]),
            pa.array([random.randrange(2**40) for _ in range(rows)]),
            pa.nulls(rows),
            pa.array([random.randbytes(40) for _ in range(rows)]),
            pa.array([{"bytes": None, "path": "/dev/zero"}] * rows),
            pa.array([[1.5, float("nan")]] * rows),
            pa.array([{"bytes": b"", "path": 1}] * rows),
        ]
    )
    title = name if random.random() < 0.8 else edit(random, {"a": name})[1]
    buffer = io.BytesIO()
    pq.write_table(table.set_column(number, title, column), buffer)
    return buffer.getvalue(), f"column {name!a} of {column.type}"


def _replace(random: Random, path: Path) -> str:
    """Put something that is no file in the file's place."""
    path.unlink()
    target = random.choice(
        ["/dev/zero", "/dev/full", path.name, "nowhere", "a pipe", "a folder", "../../outside/canary.txt"]
    )
    if target == "a pipe":
        os.mkfifo(path)
    elif target == "a folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    return f"{path.name} -> {target}"
