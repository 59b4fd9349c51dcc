"""Writing an ONNX file anew, one weight in memory at a time: each large tensor at the start of a page of `<file>.data`."""

from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto

from vlmc.exporters.onnx.weights import Weights

PAGE = 4096
LARGE = 1024
"""Bytes from which a tensor goes into the file beside."""


class Pages:
    """The new `path`, and its `<path>.data` where `beside` is set; both take their place in `finish`.

    `path` may be the file that the weights come from: it is read until then.
    """

    def __init__(self, path: Path, *, beside: bool) -> None:
        self._path, self._data = path, path.with_name(f"{path.name}.data")
        self._stream = self._data.with_name(f"{self._data.name}.new").open("wb") if beside else None
        self._end = 0

    def put(self, tensor: TensorProto) -> TensorProto:
        """Write a tensor's values if it is large; return what stands for it in the graph."""
        content = tensor.raw_data
        if self._stream is None or len(content) < LARGE:
            return tensor
        offset = -(-self._end // PAGE) * PAGE
        self._stream.write(bytes(offset - self._end) + content)
        self._end = offset + len(content)
        place = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        place.data_location = TensorProto.EXTERNAL
        for key, value in {"location": self._data.name, "offset": offset, "length": len(content)}.items():
            place.external_data.add(key=key, value=str(value))
        return place

    def finish(self, model: onnx.ModelProto, old: Weights, new: Collection[str]) -> None:
        """Write the graph; its tensors that are not in `new`, which were put already, are those of the old file."""
        tensors = [one if one.name in new else self.put(old.tensor(one.name)) for one in model.graph.initializer]
        del model.graph.initializer[:]
        model.graph.initializer.extend(tensors)
        if self._stream is not None:
            self._stream.close()
        if self._stream is not None and self._end:
            Path(self._stream.name).replace(self._data)
        else:
            self._data.unlink(missing_ok=True)
        self._path.write_bytes(model.SerializeToString())
