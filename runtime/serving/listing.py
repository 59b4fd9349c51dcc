"""What a server says of its models and of itself."""

from typing import Literal

from pydantic import BaseModel

from vlmc.runtime.serving.served import Served


class Status(BaseModel):
    """Whether the server lives, or takes requests."""

    status: Literal["ok", "ready"]


class ModelCard(BaseModel):
    """A model, as OpenAI lists it; `sparsity` and `digest` are vlmc's own."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["vlmc"] = "vlmc"
    sparsity: str
    digest: str | None

    @classmethod
    def of(cls, name: str, served: Served) -> "ModelCard":
        """Describe a model."""
        return cls(id=name, created=served.created, sparsity=served.sparsity, digest=served.digest)


class ModelList(BaseModel):
    """All models of a server."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
