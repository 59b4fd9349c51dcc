"""A request for an answer, in the form of OpenAI's chat completions, and how it becomes messages and options."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MOST_SEED = 2**63 - 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TextPart(_Strict):
    """A text in a message."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """An image: a `data:image/...;base64,` URL, or an http or https address where the server allows it."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"
    """Without effect: the model decides."""


class ImagePart(_Strict):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Strict):
    """A turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None
    """Without effect."""


class StreamOptions(_Strict):
    """What a stream ends with."""

    include_usage: bool = False
    """Send a last piece with the numbers of tokens."""
    include_obfuscation: bool = False
    """Without effect."""


class TextFormat(_Strict):
    """The only form of an answer that there is."""

    type: Literal["text"]


Zero = Annotated[float, Field(ge=0, le=0)]
Nothing = Annotated[list[Any], Field(max_length=0)]


class ChatRequest(_Strict):
    """A conversation to answer, and how; as OpenAI's, with `top_k` and `repetition_penalty` besides.

    Without a temperature the answer is greedy, the same each time.
    """

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000_000)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=0, le=_MOST_SEED)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """This and the next three are without effect."""
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    n: Literal[1] | None = None
    """This and what follows may only have the value that changes nothing."""
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logprobs: Literal[False] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=0)
    modalities: list[Literal["text"]] | None = None
    response_format: TextFormat | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> "ChatRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for streams: give stream=true too")
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise ValueError("max_tokens and max_completion_tokens differ: give one of them")
        return self

    @property
    def limit(self) -> int | None:
        """The longest answer in tokens, None where nothing is asked for."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def images(self) -> Iterator[tuple[str, str]]:
        """Yield where each image is in the request, and its URL."""
        for index, message in enumerate(self.messages):
            for place, part in enumerate(message.content):
                if isinstance(part, ImagePart):
                    yield place_of(index, place), part.image_url.url


def place_of(message: int, part: int) -> str:
    """Return the place of an image in a request, as errors name it."""
    return f"messages.{message}.content.{part}.image_url"


UNSUPPORTED: Final = frozenset(
    {
        *("n", "presence_penalty", "frequency_penalty", "logprobs", "logit_bias", "modalities", "response_format"),
        *("service_tier", "store", "tools", "tool_choice", "parallel_tool_calls"),
    }
)
"""Options that may only have the value that changes nothing."""
