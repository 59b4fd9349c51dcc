"""unpack: make the packed weights of ONNX graphs dense again, in an artifact or in a file of its own."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vlmc.exporters.onnx import BACKEND
from vlmc.exporters.onnx.sparsity import check_onnx, read, relabel
from vlmc.exporters.onnx.storage import unpack_file
from vlmc.runtime.artifact import Artifact, extend
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.json_text import read_json
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saving import carry
from vlmc.toolchain.stages.export import write_summary


def unpack_artifact(root: Path, progress: Progress) -> dict[str, Any]:
    """Replace an artifact's packed graphs by dense ones; return how many weights there were, and the bytes of both.

    Raises:
        InputError: there is no artifact, it has no packed graphs, or they are not those that the manifest lists.
        CheckFailed: an unpacked graph lacks the promised sparsity; the artifact stays as it was.
    """
    artifact = Artifact.open(root)
    prefix = f"{BACKEND.name}/"
    listed = [path for path in artifact.manifest.files if path.startswith(prefix)]
    if not listed:
        raise InputError(f"{root} has no ONNX graphs: there is nothing to unpack")
    artifact.verify_files(prefix)
    report = read_json(root / prefix / BACKEND.report)
    packed = {f"{graph['graph']}.onnx": graph for graph in report["graphs"] if (graph.get("stored") or {}).get("weights")}
    if not packed:
        raise InputError(f"the graphs of {root} are not packed: there is nothing to unpack")
    names = {name for file in packed for name in (file, f"{file}.data")} | {BACKEND.report}
    with extend(artifact, BACKEND.name) as folder:
        carry(root / BACKEND.name, folder, [path[len(prefix) :] for path in listed if path[len(prefix) :] not in names])
        before = sum(graph["bytes"] for graph in packed.values())
        weights = sum(_unpack(root / prefix / name, folder / name) for name in packed)
        for name, graph in packed.items():
            graph |= {"stored": None, "bytes": _size(folder / name)}
        (folder / BACKEND.report).write_text(json.dumps(report | {"packed": False}, indent=2) + "\n", encoding="utf-8")
    write_summary(artifact, progress)
    after = sum(graph["bytes"] for graph in packed.values())
    return {"path": str(root), "weights": weights, "bytes_before": before, "bytes": after}


def unpack_to(path: Path, target: Path) -> dict[str, Any]:
    """Write a packed file with dense weights to `target`, which appears when it is whole.

    Raises:
        InputError: the file cannot be read or is not packed, or there is something at `target` already.
        CheckFailed: the unpacked graph lacks the sparsity that its metadata promises.
    """
    read(path)
    if os.path.lexists(target) or os.path.lexists(_data(target)):
        raise InputError(f"{target} or {_data(target).name} exists: name another file with --out")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent} to write {target.name} to")
    with TemporaryDirectory(dir=target.parent, prefix=".vlmc-unpack-") as scratch:
        made = Path(scratch) / target.name
        weights = _unpack(path, made)
        for file in (_data(made), made):  # the graph last: what is there can be loaded
            if file.exists():
                file.rename(target.parent / file.name)
    return {"path": str(target), "weights": weights, "bytes_before": _size(path), "bytes": _size(target)}


def _unpack(path: Path, target: Path) -> int:
    weights = unpack_file(path, target)
    relabel(target)
    for layer in check_onnx(target):
        if layer.violation is not None:
            raise CheckFailed(f"{path.name}: {layer.layer} is not {layer.pattern}: {layer.violation}")
    return weights


def _data(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, _data(path)) if file.exists())
