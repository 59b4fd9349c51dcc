"""`vlmc run`: one answer, or a conversation, as text or as JSON."""

import io
import json
from pathlib import Path

import pytest

from tests import pico
from tests.artifacts import exported
from vlmc.runtime import Message, load
from vlmc.toolchain.cli.main import run

pytestmark = pytest.mark.integration

QUESTIONS = ("what is it ?", "how many digits are there ?")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("llava", tmp_path_factory.getbasetemp())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pico.picture(0).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def conversation(artifact: Path, image: Path) -> list[str]:
    turns: list[Message] = []
    with load(artifact) as model:
        for number, question in enumerate(QUESTIONS):
            turns.append(Message("user", [image, question] if number == 0 else question))
            turns.append(Message("assistant", model.chat(turns, max_new_tokens=3, seed=0).text))
    return [str(turn.content) for turn in turns[1::2]]


def test_an_answer_comes_on_stdout_and_its_times_on_stderr(
    artifact: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(artifact), "--image", str(image), "--prompt", QUESTIONS[0], "--max-new-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == conversation(artifact, image)[0] + "\n"
    assert "first token after" in captured.err
    assert "tokens/s; 3 tokens" in captured.err


def test_an_answer_as_json(artifact: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["run", str(artifact), "--image", str(image), "--prompt", QUESTIONS[0], "--max-new-tokens", "3", "--json"]
    assert run(asked) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["answer"], found["tokens"], captured.err) == (conversation(artifact, image)[0], 3, "")
    assert 0 < found["first_token"] <= found["seconds"]
    assert found["tokens_per_second"] > 0


@pytest.mark.parametrize("first", [False, True])
def test_a_conversation_line_by_line(
    artifact: Path, image: Path, first: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = QUESTIONS[1:] if first else QUESTIONS
    asked = ["run", str(artifact), "--image", str(image), "--chat", "--max-new-tokens", "3"]
    asked += ["--prompt", QUESTIONS[0]] if first else []
    monkeypatch.setattr("sys.stdin", io.StringIO("\n" + "\n\n".join(lines) + "\n"))
    assert run(asked) == 0
    assert capsys.readouterr().out == "".join(f"{one}\n" for one in conversation(artifact, image))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert run([*asked, "--json"]) == 0
    turns = json.loads(capsys.readouterr().out)["turns"]
    assert [(turn["prompt"], turn["answer"]) for turn in turns] == list(
        zip(QUESTIONS, conversation(artifact, image), strict=True)
    )


class Typing(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_wrong_question_may_be_asked_again(
    artifact: Path, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Typing(f"{'what ' * 200}\n{QUESTIONS[0]}\n"))
    assert run(["run", str(artifact), "--image", str(image), "--chat", "--max-new-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert conversation(artifact, image)[0] in captured.out
    assert "vlmc: the prompt and its images take" in captured.err


def test_in_a_script_a_wrong_question_ends_it(
    artifact: Path, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what " * 200))
    assert run(["run", str(artifact), "--image", str(image), "--chat"]) == 2
    assert "ask a shorter question" in capsys.readouterr().err


def test_ctrl_c_ends_an_answer_and_then_the_conversation(
    artifact: Path, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([QUESTIONS[0], QUESTIONS[0], KeyboardInterrupt()])

    def typed(_: str) -> str:
        line = next(said)
        if isinstance(line, KeyboardInterrupt):
            raise line
        return line

    from vlmc.runtime import Model

    before, calls = Model.stream_chat, list[int]()

    def stream(*given: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return before(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "stream_chat", stream)
    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr("sys.stdin", Typing())
    assert run(["run", str(artifact), "--image", str(image), "--chat", "--max-new-tokens", "3"]) == 0
    monkeypatch.undo()
    assert conversation(artifact, image)[0] in capsys.readouterr().out
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "there is no question: give --prompt TEXT, or --chat for a conversation"),
        (["--chat", "--raw"], "--raw and --chat do not go together"),
    ],
)
def test_wrong_usage_is_told(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "artifact", "--image", "p.png", *more]) == 2
    assert message in capsys.readouterr().err
