"""Six of the demo's questions with their images' files, and writers that put them into every form of data set."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image

from vlmc.toolchain import builtin
from vlmc.toolchain.data.sample import Sample

COUNT = 6


@dataclass(frozen=True)
class Asked:
    """A question as a file holds it: the image file's name and bytes, the texts."""

    name: str
    content: bytes
    question: str
    answer: str
    kind: str

    @property
    def row(self) -> dict[str, Any]:
        return {"question": self.question, "answer": self.answer, "kind": self.kind}

    @property
    def turns(self) -> list[dict[str, str]]:
        return [{"from": "human", "value": f"<image>\n{self.question}"}, {"from": "gpt", "value": self.answer}]


def six(folder: Path) -> list[Asked]:
    """Write the demo's first six test questions into a folder and read them back; every other image is a JPEG."""
    path = builtin.data_sets()["demo"].write(folder / "demo", "test", COUNT)
    found = []
    for number, line in enumerate(path.read_text().splitlines()):
        entry = json.loads(line)
        turns, image = entry["conversations"], (path.parent / entry["image"])
        content = _jpeg(image) if number % 2 else image.read_bytes()
        name = f"{number:03d}.{'jpg' if number % 2 else 'png'}"
        question = turns[0]["value"].removeprefix("<image>\n")
        found.append(Asked(name, content, question, turns[1]["value"], entry["kind"]))
    return found


def seen(samples: Sequence[Sample]) -> list[tuple[str, str, str, bytes]]:
    """Return what samples hold, images as their RGB values."""
    return [(one.question, one.answer, one.kind, one.load_image().tobytes()) for one in samples]


def expected(asked: Sequence[Asked]) -> list[tuple[str, str, str, bytes]]:
    """Return what `seen` must give, with Pillow alone."""
    return [(one.question, one.answer, one.kind, _rgb(one.content)) for one in asked]


def put_images(folder: Path, asked: Sequence[Asked]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in asked:
        (folder / one.name).write_bytes(one.content)


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversations(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder, asked)
    return lines(folder / "data.jsonl", [{"image": one.name, "kind": one.kind, "conversations": one.turns} for one in asked])


def conversation_list(folder: Path, asked: Sequence[Asked]) -> Path:
    rows = [json.loads(line) for line in conversations(folder, asked).read_text().splitlines()]
    path = folder / "data.json"
    path.write_text(json.dumps(rows, indent=1))
    return path


def vqa_lines(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder, asked)
    return lines(folder / "data.jsonl", [{"image": one.name, **one.row} for one in asked])


def image_folder(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder / "images", asked)
    lines(folder / "metadata.jsonl", [{"file_name": f"images/{one.name}", **one.row} for one in asked])
    return folder


def image_folder_csv(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder, asked)
    with (folder / "metadata.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, ["file_name", "question", "answer", "kind"])
        writer.writeheader()
        writer.writerows({"file_name": one.name, **one.row} for one in asked)
    return folder


def table(asked: Sequence[Asked], image: Callable[[Asked], Any]) -> pa.Table:
    return pa.Table.from_pylist([{"image": image(one), **one.row} for one in asked])


def parquet(folder: Path, asked: Sequence[Asked]) -> Path:
    """As Hugging Face writes it: the image a struct of bytes and path; two rows in a group."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(asked, lambda one: {"bytes": one.content, "path": None}), folder / "d.parquet", row_group_size=2)
    return folder / "d.parquet"


def parquet_bytes(folder: Path, asked: Sequence[Asked]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(asked, lambda one: one.content), folder / "d.parquet")
    return folder / "d.parquet"


def parquet_paths(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder / "images", asked)
    pq.write_table(table(asked, lambda one: f"images/{one.name}"), folder / "d.parquet")
    return folder / "d.parquet"


def parquet_folder(folder: Path, asked: Sequence[Asked]) -> Path:
    """As a clone of a hub data set: shards of two splits in a folder `data`."""
    (folder / "data").mkdir(parents=True)
    for shard, part in enumerate((asked[:4], asked[4:])):
        made = table(part, lambda one: {"bytes": one.content, "path": None})
        pq.write_table(made, folder / "data" / f"test-{shard:05d}-of-00002.parquet")
    made = table(asked[:1], lambda one: {"bytes": one.content, "path": None})
    pq.write_table(made, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def tar(path: Path, asked: Sequence[Asked]) -> Path:
    """As webdataset's own writer makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for one in asked:
            stem, ending = one.name.split(".")
            writer.write({"__key__": f"some/{stem}", ending: one.content, "json": json.dumps(one.row).encode()})
    return path


def one_tar(folder: Path, asked: Sequence[Asked]) -> Path:
    return tar(folder / "d.tar", asked)


def tar_folder(folder: Path, asked: Sequence[Asked]) -> Path:
    for shard in range(3):
        tar(folder / f"shard-{shard:03d}.tar", asked[2 * shard : 2 * shard + 2])
    return folder


def tar_shards(folder: Path, asked: Sequence[Asked]) -> Path:
    return tar_folder(folder, asked) / "shard-{000..002}.tar"


def tar_pattern(folder: Path, asked: Sequence[Asked]) -> Path:
    return tar_folder(folder, asked) / "shard-*.tar"


FORMS: dict[str, Callable[[Path, Sequence[Asked]], Path]] = {
    form.__name__: form
    for form in (
        conversations,
        conversation_list,
        vqa_lines,
        image_folder,
        image_folder_csv,
        parquet,
        parquet_bytes,
        parquet_paths,
        parquet_folder,
        one_tar,
        tar_folder,
        tar_shards,
        tar_pattern,
    )
}
"""Writers of every form that is a file or a folder; each returns what `--data` names."""


def _jpeg(image: Path) -> bytes:
    buffer = io.BytesIO()
    Image.open(image).save(buffer, "JPEG")
    return buffer.getvalue()


def _rgb(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()
