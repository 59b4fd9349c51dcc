"""inspect: the contents of an artifact, read from its files."""

from pathlib import Path
from typing import Any

from vlmc.exporters import BACKENDS
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.artifact.file_digests import FileDigests
from vlmc.runtime.errors import UNUSABLE, InputError, one_line, shortened
from vlmc.runtime.json_text import read_json
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain import builtin
from vlmc.toolchain.reporting.card import pruned_accuracy
from vlmc.toolchain.reporting.paths import EVALUATION, PAGE
from vlmc.toolchain.reporting.tables import asked, megabytes, percent, show_accuracies, show_table
from vlmc.toolchain.reporting.verification import verify_artifact

_WAITS = {False: "merge it with 'vlmc merge'", True: "load it with peft, as the model card says"}


def look(name: str, *, trust: bool = False) -> dict[str, Any]:
    """Return the overview of an artifact, or the description of a dense model; `trust`: its own code may be run.

    Raises:
        InputError: there is no artifact or model of that name, or it is damaged.
    """
    folder, is_place = Path(name), name not in builtin.models() and ("/" not in name or Path(name).exists())
    if is_place and not (folder / "config.json").is_file():
        return _compared(Artifact.open(folder))
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.reporting.dense_model import describe

    found = SavedModel.find(name, trust=trust)
    return describe(found) if found.artifact is None else _compared(found.artifact)


def _compared(artifact: Artifact) -> dict[str, Any]:
    """Return the overview with the files whose SHA-256 is not what the manifest lists."""
    with FileDigests() as digests:
        return {**overview(artifact), "differing": list(artifact.differing(hashed=digests.of))}


def show(found: dict[str, Any]) -> None:
    """Print what `look` found."""
    if "state" in found:
        show_overview(found)
    else:
        from vlmc.toolchain.reporting.dense_model import show_description

        show_description(found)


def overview(artifact: Artifact) -> dict[str, Any]:
    """Return the contents of an artifact: identity, history, sparsity, bytes, graphs, accuracy."""
    manifest, reports = artifact.manifest, verify_artifact(artifact)
    sizes = {path: file.size for path, file in manifest.files.items()}
    return {
        "path": str(artifact.root),
        "family": manifest.family,
        "state": manifest.state,
        "kept_apart": bool(manifest.history and manifest.history[-1].measures.get("kept_apart")),
        "origin": manifest.origin.model,
        "digest": artifact.digest,
        "history": [{"stage": step.stage, **step.config} for step in manifest.history],
        "layers": len(reports),
        "holds": not any(report.violation for report in reports),
        "patterns": sorted({report.pattern for report in reports}),
        "sparsity": 1 - sum(r.nonzero for r in reports) / sum(r.rows * r.columns for r in reports),
        "bytes": {
            "weights": sum(
                size for path, size in sizes.items() if path.startswith("model") and path.endswith(".safetensors")
            ),
            "packed": _packed_bytes(artifact),
            **{name: sum(size for path, size in sizes.items() if path.startswith(f"{name}/")) for name in BACKENDS},
        },
        "card": artifact.card_note,
        "report": str(artifact.root / PAGE) if (artifact.root / PAGE).is_file() else None,
        "pruned": pruned_accuracy(manifest),
        "evaluation": _evaluation(artifact.root / EVALUATION) if EVALUATION in manifest.files else None,
    }


def show_overview(found: dict[str, Any]) -> None:
    """Print an overview."""
    count = found["bytes"]
    path, family, origin = (shortened(found[name]) for name in ("path", "family", "origin"))
    print(f"{path}: {family} from {origin}, {found['state']}, digest {found['digest'][:16]}")
    print("history: " + shortened(" -> ".join(_brief(step) for step in found["history"]), 2000))
    rows = [
        ("layers that hold", f"{found['layers']} of {_listed(found['patterns'])}" if found["holds"] else "BROKEN"),
        ("sparsity of those layers", percent(found["sparsity"])),
        ("weights, dense layout", megabytes(count["weights"])),
        ("weights, packed (computed)", megabytes(count["packed"])),
        *((backend.title, megabytes(count[name])) for name, backend in BACKENDS.items() if count[name]),
    ]
    show_table(("artifact", "value"), rows)
    for path in found.get("differing", ()):
        print(f"CHANGED: {path} is not the file that the manifest lists (SHA-256 differs)")
    if found["pruned"]:
        print(f"before the repair: {percent(found['pruned']['overall'])} right on {asked(found['pruned'])}")
    if found["state"] == "adapted":
        print(f"its adapter is not merged, and transformers does not load it: {_WAITS[found['kept_apart']]}")
    if found["report"]:
        print(f"report: {shortened(found['report'], 2000)}")
    if found["evaluation"]:
        print()
        show_accuracies(found["evaluation"])


def _evaluation(path: Path) -> dict[str, Any]:
    """Return the accuracies that eval wrote, once they have the form that is printed."""
    try:
        found = read_json(path)
        for model in found["models"].values():
            _ = float(model["overall"]), *(float(model["by_kind"][kind]) for kind in _kinds(found))
        _ = found["count"], _pruned(found)
        return dict(found)
    except (*UNUSABLE, StopIteration) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error)}): run 'vlmc eval {path.parent.parent}' again"
        ) from None


def _kinds(found: dict[str, Any]) -> list[str]:
    return list(next(iter(found["models"].values()))["by_kind"])


def _pruned(found: dict[str, Any]) -> tuple[Any, ...]:
    before = found.get("pruned")
    if before is None:
        return ()
    kinds = [float(share) for share in before.get("by_kind", {}).values()]
    return (float(before["overall"]), before["count"], before["split"], before["data"], *kinds)


def _brief(step: dict[str, Any]) -> str:
    method = step.get("method")
    target = step.get("target")
    return " ".join(str(word) for word in (step["stage"], target, method) if word)


def _packed_bytes(artifact: Artifact) -> int:
    """Return the bytes if N:M layers stored N values and N indices of ceil(log2 M) bits per group, as sparse kernels do."""
    total = 0
    promised = {layer.tensor: layer.sparsity for layer in artifact.manifest.layers.values()}
    for name, file in open_weights(artifact.root).items():
        bits = file[name]
        total += _packed(bits.size, bits.itemsize, promised[name]) if name in promised else bits.nbytes
    return total


def _packed(count: int, itemsize: int, pattern: SparsityPattern) -> int:
    if pattern.n is None or pattern.m is None:
        return count * itemsize
    groups = count // pattern.m
    return groups * pattern.n * itemsize + groups * pattern.n * (pattern.m - 1).bit_length() // 8


def _listed(patterns: list[str]) -> str:
    return ", ".join(patterns) if len(patterns) < 4 else f"{len(patterns)} patterns, {patterns[0]} to {patterns[-1]}"
