"""A model in LitServe: `python examples/litserve_server.py artifact`, needs `pip install 'vlmc[cpu]' litserve`.

The body is JSON: {"question": "what is shown", "image": the file in base64}; it is posted to /predict.
"""

import base64
import sys
from typing import Any

import litserve

from vlmc.runtime import Answer, InputError, load


class Vlm(litserve.LitAPI):
    """Loads the artifact in each of LitServe's workers."""

    def __init__(self, artifact: str) -> None:
        super().__init__()
        self._artifact = artifact

    def setup(self, device: str) -> None:
        """Load the model; LitServe calls this once in each worker."""
        self._model = load(self._artifact)

    def decode_request(self, request: dict[str, Any]) -> tuple[bytes, str]:
        """Return the image and the question."""
        return base64.b64decode(request["image"]), request["question"]

    def predict(self, asked: tuple[bytes, str]) -> Answer | str:
        """Answer; what is wrong with the question is told in a line."""
        try:
            return self._model.generate(*asked, max_new_tokens=64)
        except InputError as error:
            return str(error)

    def encode_response(self, output: Answer | str) -> dict[str, Any]:
        """Return the JSON of an answer, or of what is wrong."""
        return {"error": output} if isinstance(output, str) else {"answer": output.text, "tokens": len(output.tokens)}


if __name__ == "__main__":
    server = litserve.LitServer(Vlm(sys.argv[1]), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000, generate_client_file=False)
