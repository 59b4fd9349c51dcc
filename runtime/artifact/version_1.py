"""Manifests of schema version 1: what they say about serving is in `deployment.json` since version 2."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from vlmc.runtime.deployment import Deployment, FixedProcessor, ImagePipeline, Prompt

GRAPHS: Final = "onnx"  # the folder of the graphs that it describes


class Serving(BaseModel):
    """The entry `serving` of a manifest of version 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: ImagePipeline
    image_slot: str = "<image>"
    image_token_id: int
    image_tokens: int = Field(gt=0)
    image_position: Literal["inline", "front"]
    prompt: str | None
    eos_token_ids: tuple[int, ...]
    max_positions: int = Field(gt=0)

    def deployment(self, family: str) -> Deployment:
        """Return the same in the present form."""
        question = None if self.prompt is None else self.prompt.replace(self.image_slot, "{images}", 1)
        return Deployment(
            family=family,
            processor=FixedProcessor(image=self.image, image_tokens=self.image_tokens),
            prompt=Prompt(slot=self.image_slot, image=self.image_slot, question=question, place=self.image_position),
            image_token_id=self.image_token_id,
            max_images=1,
            stop_ids=self.eos_token_ids,
            max_positions=self.max_positions,
        )


def upgrade(content: dict[str, Any]) -> tuple[dict[str, Any], Deployment | None]:
    """Return the fields of a version 1 manifest as version 2 has them, and its serving data separately.

    Raises:
        ValidationError: the serving data are not valid.
    """
    serving = content.get("serving")
    fields = {name: value for name, value in content.items() if name != "serving"} | {"schema_version": 2}
    if serving is None:
        return fields, None
    return fields, Serving.model_validate(serving).deployment(str(content.get("family")))
