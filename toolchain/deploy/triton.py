"""A model repository for Triton Inference Server, inside the artifact that it serves."""

from vlmc.runtime.triton import FINISH, IMAGE, MAX_BATCH, OPTIONS, PROMPT, TEXT, TOKENS

FOLDER = "triton"
WHOLE, STREAM = "vlmc", "vlmc_stream"
"""The two models: one response for a request, over HTTP and gRPC; or one for each piece of the answer."""
_MODEL = '''"""vlmc's own backend; the Python that Triton runs needs it: pip install 'vlmc[cpu]'."""

from vlmc.runtime.triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_TYPES = {int: "TYPE_INT64", float: "TYPE_FP32"}


def repository() -> dict[str, str]:
    """Return the repository's files by their paths in it: each model's `config.pbtxt`, and `1/model.py`."""
    files = {}
    for name in (WHOLE, STREAM):
        files[f"{name}/config.pbtxt"] = _config(name, streams=name == STREAM)
        files[f"{name}/1/model.py"] = _MODEL
    return files


def _config(name: str, *, streams: bool) -> str:
    inputs = [_tensor(PROMPT, "TYPE_STRING"), _tensor(IMAGE, "TYPE_STRING", "-1", optional=True)]
    inputs += [_tensor(option, _TYPES[kind], optional=True) for option, kind in OPTIONS.items()]
    outputs = [_tensor(TEXT, "TYPE_STRING"), _tensor(TOKENS, "TYPE_INT32"), _tensor(FINISH, "TYPE_STRING")]
    # the artifact as seen from the model's folder; 0 threads: one for each core
    parameters = {"artifact": "../..", "threads": "0", "max_batch": str(MAX_BATCH)}
    lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 0"]
    lines += [f"input [\n{_joined(inputs)}\n]", f"output [\n{_joined(outputs)}\n]"]
    lines += ["instance_group [{ kind: KIND_CPU count: 1 }]"]
    lines += [f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    lines += ["model_transaction_policy { decoupled: true }"] if streams else []
    return "\n".join(lines) + "\n"


def _tensor(name: str, kind: str, size: str = "1", *, optional: bool = False) -> str:
    return f'{{ name: "{name}" data_type: {kind} dims: [ {size} ]{" optional: true" if optional else ""} }}'


def _joined(tensors: list[str]) -> str:
    return ",\n".join(f"  {tensor}" for tensor in tensors)
