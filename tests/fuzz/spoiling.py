"""Spoiling bytes and JSON: the smallest edits, each a function of a random source that says in words what it did."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

Spoiled = tuple[bytes, str]
_DEEP = 5_000

TEXTS = (
    "",
    " ",
    "\n",
    "\x00",
    "\x1b[31mred\x1b[0m",
    "a\nb",
    "\r",
    "\u202e",
    "\ud800",
    "\udcff",
    "NaN",
    "null",
    "../../outside/canary.txt",
    "/dev/zero",
    "/etc/passwd",
    "~",
    "*",
    "%s%n",
    "{0.__class__}",
    "{prompt}",
    "<image>",
    "<im<image>age>",
    "</s>",
    "<pad>",
    "x" * 300,
    "é" * 200,
    "\U0001f600",
    "\uff11\uff12",
    "-",
    "--help",
    "$(id)",
    "a/b",
    "\\",
    "'",
    '"',
    "{% for x in range(9**9) %}{% endfor %}",
)
"""Texts that are no trouble only to code that expects trouble."""
NUMBERS = (
    0,
    -1,
    1,
    2,
    2**31,
    2**32,
    2**63,
    2**64,
    -(2**63),
    10**40,
    1e308,
    -0.0,
    0.1,
    float("nan"),
    float("inf"),
    -float("inf"),
)


def value(random: Random) -> Any:
    """Return a JSON value of a type that is likely wrong."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: random.choice(TEXTS),
        lambda: random.choice(NUMBERS),
        lambda: random.choice([None, True, False, [], {}, [[]], {"": {}}]),
        lambda: [random.choice(NUMBERS)] * random.choice([1, 2, 1000]),
        lambda: {random.choice(TEXTS): random.choice(NUMBERS)},
    )
    return random.choice(makers)()


def spoil_bytes(random: Random, content: bytes) -> Spoiled:
    """Flip, cut, grow, repeat or overwrite."""
    return random.choice([_flip, _flip, _flip_many, _cut, _cut_out, _grow, _zero, _repeat, _replace])(random, content)


def spoil_same_size(random: Random, content: bytes) -> Spoiled:
    """Change bytes of which no check of sizes can know."""
    return random.choice([_flip, _flip, _flip_many, _zero])(random, content)


def spoil_json(random: Random, content: bytes) -> Spoiled:
    """Edit one place of a JSON text, or its syntax; as bytes where it is none."""
    if random.random() < 0.25:
        return random.choice([spoil_bytes, _nest, _twice, _reencode, _other_root, _open_end])(random, content)
    try:
        tree = json.loads(content)
    except ValueError:
        return spoil_bytes(random, content)
    tree, what = edit(random, tree)
    return json.dumps(tree).encode("utf-8", "surrogatepass"), what


def edit(random: Random, tree: Any) -> tuple[Any, str]:
    """Change one node of a JSON tree: another value, no such key, another key, one more of it."""
    places = list(_places(tree))
    if not places:
        return value(random), "another root"
    holder, key = random.choice(places)
    do = random.randrange(5)
    if do <= 2:
        holder[key] = value(random)
        return tree, f"another value at {key!a}"
    if do == 3:
        del holder[key]
        return tree, f"no {key!a}"
    if isinstance(holder, dict):
        holder[random.choice(TEXTS)] = holder[key]
        return tree, f"a copy of {key!a} under another key"
    holder.append(holder[key])
    return tree, f"item {key!a} once more"


def _places(tree: Any) -> Any:
    """Yield every holder and key in a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in list(pairs):
        yield tree, key
        yield from _places(inner)


def _flip(random: Random, content: bytes) -> Spoiled:
    if not content:
        return _grow(random, content)
    place, bit = random.randrange(len(content)), random.randrange(8)
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed), f"bit {bit} of byte {place} flipped"


def _flip_many(random: Random, content: bytes) -> Spoiled:
    changed = content
    for _ in range(random.choice([2, 10, 100])):
        changed, _ = _flip(random, changed)
    return changed, "many bits flipped"


def _cut(random: Random, content: bytes) -> Spoiled:
    end = random.choice([0, 1, len(content) // 2, max(0, len(content) - 1), random.randrange(len(content) + 1)])
    return content[:end], f"cut to {end} bytes"


def _cut_out(random: Random, content: bytes) -> Spoiled:
    start = random.randrange(len(content) + 1)
    length = random.choice([1, 8, 100])
    return content[:start] + content[start + length :], f"{length} bytes at {start} left out"


def _grow(random: Random, content: bytes) -> Spoiled:
    return content + random.choice([b"\0", b"x", b"\n{}", bytes(10_000)]), "more at the end"


def _zero(random: Random, content: bytes) -> Spoiled:
    start, length = random.randrange(len(content) + 1), random.choice([4, 64, 4096])
    end = min(len(content), start + length)
    return content[:start] + bytes(end - start) + content[end:], f"zeros from {start} to {end}"


def _repeat(random: Random, content: bytes) -> Spoiled:
    start = random.randrange(len(content) + 1)
    part = content[start : start + random.choice([1, 16, 1000])]
    return content[:start] + part + content[start:], f"bytes at {start} twice"


def _replace(random: Random, content: bytes) -> Spoiled:
    start, length = random.randrange(len(content) + 1), random.choice([1, 4, 8])
    junk = random.choice([b"\xff" * length, b"\x00" * length, b"\x7f" + b"\xff" * (length - 1), random.randbytes(length)])
    return content[:start] + junk + content[start + length :], f"{length} other bytes at {start}"


def _nest(random: Random, content: bytes) -> Spoiled:
    opens, closes = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return opens * _DEEP + b"0" + closes * _DEEP, "nested very deep"


def _twice(random: Random, content: bytes) -> Spoiled:
    return content + content, "the whole text twice"


def _reencode(random: Random, content: bytes) -> Spoiled:
    name = random.choice(["utf-16", "utf-8-sig", "utf-32"])
    return content.decode("utf-8", "replace").encode(name), f"as {name}"


def _other_root(random: Random, content: bytes) -> Spoiled:
    return json.dumps(value(random)).encode("utf-8", "surrogatepass"), "another root"


def _open_end(random: Random, content: bytes) -> Spoiled:
    return random.choice([b"[" * 100_000, b'"' + b"x" * 100_000, b"1" * 10_000, b"{", b"\x80\xff"]), "no JSON that ends"
