"""inspect of a dense model: what it is, what pruning would change, and what to do next."""

from typing import Any

import torch

from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.families import exported_names
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.tables import megabytes, show_table


def describe(saved: SavedModel) -> dict[str, Any]:
    """Describe a dense model: family, parameters, types, layers that would be pruned, bytes, and the next command.

    Raises:
        InputError: vlmc does not support the model, or its files are damaged.
    """
    family, model = saved.family, saved.stream(torch.device("cpu"))
    layers, files = family.prunable(model.module), open_weights(saved.folder)
    tensors = {model.stored(name): one.numel() for name, one in model.module.named_parameters()}  # tied ones once
    names = {name: model.stored(f"{name}.weight") for name in layers}
    return {
        "path": str(saved.folder),
        "model": saved.title,
        "family": family.name,
        "notice": family.notice,
        "types": sorted({file.dtype(name) for name, file in files.items()}),
        "digest": saved.digest,
        "parameters": sum(tensors.values()),
        "bytes": {"weights": sum(file.span(name)[1] - file.span(name)[0] for name, file in files.items())},
        "prunable": {
            part: {
                "layers": list(layers.values()).count(part),
                "parameters": sum(tensors[names[name]] for name, one in layers.items() if one is part),
            }
            for part in dict.fromkeys(layers.values())
        },
        "adaptable": len(family.adaptable(model.module)),
        "odd": sum(files[stored].shape(stored)[1] % 4 > 0 for stored in names.values()),
        "exported": family.name in exported_names(),
        "next": f"vlmc compress {saved.name} --target 2:4 --repair ressa",
    }


def show_description(found: dict[str, Any]) -> None:
    """Print a description."""
    print(f"{found['model']}: a dense {found['family']} model in {found['path']}, digest {found['digest'][:16]}")
    if found["notice"]:
        print(found["notice"])
    rows = [
        ("parameters", f"{found['parameters']:,}"),
        ("weights", f"{megabytes(found['bytes']['weights'])} in {', '.join(found['types'])}"),
        *(
            (f"{part} layers that would be pruned", f"{one['layers']}, {one['parameters']:,} weights")
            for part, one in found["prunable"].items()
        ),
        ("interface layers that repair adapts", found["adaptable"]),
    ]
    show_table(("dense model", "value"), rows)
    if found["odd"]:
        print(f"{found['odd']} layers have inputs that are not a multiple of 4: 2:4 leaves them dense with --allow-dense")
    if not found["exported"]:
        print(f"vlmc exports {', '.join(exported_names())}; transformers loads what it makes of this model")
    print(f"next: {found['next']}")
