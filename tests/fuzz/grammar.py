"""What a service, a proxy or a hand can make of a good reply: mutations that keep most of it good.

A mutation works on the shape it finds: a script of HTTP replies, a JSON text, or lines of text.
Every choice comes from one `Random`. Hypothesis supplies one it can shrink, the fuzz run a fast
one, and so both speak the same grammar.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.memory import NEXT_REPLY


@dataclass(frozen=True)
class Raw:
    """A piece of JSON text as it is, valid or not."""

    text: str


@dataclass
class Pairs:
    """A JSON object that may hold a key twice."""

    items: list[tuple[str, Any]]


HUGE = "9" * 400
BEYOND_INT = "9" * 5000  # more digits than int() takes
DEEP = 400  # parsed without trouble, and too much for whatever recurses in Python
DEEPER = 100_000
POISON: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    " ",
    "/",
    "_",
    "0",
    "\x00",
    "\r\nX-Injected: 1",
    "ü\u2028\ufeff\U0001f600",
    "%2e%2e/..?x=1#",
    "\ud800",
    "x" * 40_000,
    [],
    [None],
    [[]],
    {},
    {"id": None},
    Raw(HUGE),
    Raw(BEYOND_INT),
    Raw("-" + HUGE),
    Raw("1e400"),
    Raw("1E-400"),
    Raw("NaN"),
    Raw("-Infinity"),
    Raw('"\\udc00\\ud800"'),
    Raw("[" * DEEP + "]" * DEEP),
    Raw('{"x":' * DEEP + "1" + "}" * DEEP),
    Raw("[" * DEEPER),
    "9999-12-31T23:59:59.999999+00:00",
    "0001-01-01T00:00:00Z",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "https://127.0.0.1:port/",
    "https://[::1/",
    "https://elsewhere.invalid/",
)
HEADER_POISON: tuple[bytes, ...] = (
    b"",
    b"0",
    b"-1",
    b"1.5",
    b"1e9",
    b"nan",
    b"inf",
    HUGE.encode(),
    BEYOND_INT.encode(),
    b"bytes 0-*/*",
    b"bytes */x",
    b"bytes 0-9/99999999999",
    b"application/json; charset=utf-7",
    b"text/html; charset=nonsense",
    b"gzip",
    b"deflate",
    b"chunked",
    b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Thu, 99 Foo 2026 25:61:61 GMT",
    b"https://127.0.0.1:port/",
    b"https://[::1/",
    b"https://elsewhere.invalid/",
    b"/relative",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\xc3\xbc"',
    b"x" * 7000,
)
STATUSES = (100, 101, 200, 201, 202, 203, 204, 206, 300, 304, 307, 400, 401, 403, 404, 405, 408)
MORE_STATUSES = (409, 410, 412, 416, 429, 499, 500, 502, 503, 504, 599, 600, 999)
TOML_POISON = (
    "",
    "true",
    "-1",
    "nan",
    "-inf",
    "1e999",
    HUGE,
    BEYOND_INT,
    "0x" + "f" * 6000,
    "1979-05-27T07:32:00Z",
    '""',
    "[]",
    "{}",
    "[" * DEEP + "]" * DEEP,
    "[" * DEEPER,
    "{a." * DEEP,
    '"\\u0000"',
    '"\\U0010ffff"',
    '"' + "x" * 40_000 + '"',
    '"https://[::1"',
    '"http://127.0.0.1:99999999"',
    '"https://user:SECRET@127.0.0.1/lb-drain"',
    '"https://127.0.0.1/lb-drain?sig=SECRET"',
    "'''",
    "\\",
)


def mutated(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return the strategy of all that can become of the seeds."""
    sources = st.randoms(use_true_random=False)
    return st.builds(mutate, sources, st.sampled_from(list(seeds)), st.integers(0, 4))


def mutate(random: Random, data: bytes, times: int) -> bytes:
    """Return `data` after that many mutations."""
    for _ in range(times):
        data = _once(random, data)
    return data


def _once(random: Random, data: bytes) -> bytes:
    if random.randrange(8) == 0:
        return _bytes(random, data)
    if data.startswith(b"HTTP/") or NEXT_REPLY in data:
        return _script(random, data)
    return _text(random, data)


def _text(random: Random, data: bytes) -> bytes:
    try:
        tree = json.loads(data, object_pairs_hook=Pairs)
        return _json(random, tree) if isinstance(tree, Pairs | list) else _bytes(random, data)
    except (ValueError, RecursionError):
        return _lines(random, data)


# --- JSON ----------------------------------------------------------------------------------------


def _json(random: Random, tree: Any) -> bytes:
    places = list(_places(tree))
    if not places:
        return render(random.choice(POISON))
    node, index = random.choice(places)
    random.choice(_OF_OBJECTS if isinstance(node, Pairs) else _OF_LISTS)(random, node, index, tree)
    return render(tree)


def _places(tree: Any) -> Any:
    """Yield every (container, index) below a node; bounded, because trees can grow."""
    waiting = [tree]
    found = 0
    while waiting and found < 3000:
        node = waiting.pop()
        children = [value for _, value in node.items] if isinstance(node, Pairs) else node
        for index, value in enumerate(children):
            found += 1
            yield node, index
            if isinstance(value, Pairs | list):
                waiting.append(value)


def render(value: Any) -> bytes:
    """Return the JSON text of a tree, raw pieces as they are."""
    return _render(value).encode("utf-8", "surrogatepass")


def _render(value: Any) -> str:
    match value:
        case Raw():
            return value.text
        case Pairs():
            items = ",".join(f"{json.dumps(key)}:{_render(item)}" for key, item in value.items)
            return "{" + items + "}"
        case list():
            return "[" + ",".join(map(_render, value)) + "]"
        case str() if value == "\ud800":
            return f'"{value}"'
        case _:
            return json.dumps(value)


def _drop(_random: Random, node: Any, index: int, _tree: Any) -> None:
    del (node.items if isinstance(node, Pairs) else node)[index]


def _poison(random: Random, node: Any, index: int, _tree: Any) -> None:
    _set(node, index, random.choice(POISON))


def _twice(random: Random, node: Any, index: int, _tree: Any) -> None:
    """Repeat an entry, or a key with another value, before or after the first."""
    if isinstance(node, Pairs):
        key, value = node.items[index]
        other = random.choice([value, [], Pairs([]), None, "", *POISON[:12]])
        node.items.insert(index + random.randrange(2), (key, other))
    else:
        node.insert(random.randrange(len(node) + 1), node[index])


def _rename(random: Random, node: Pairs, index: int, _tree: Any) -> None:
    key, value = node.items[index]
    other = random.choice([key.upper(), key.lower(), f"_{key}", key + " ", "", "id", key[:-1]])
    node.items[index] = (other, value)


def _respell(random: Random, node: Any, index: int, _tree: Any) -> None:
    """Change a text a little: case, spaces, an underscore, another character."""
    value = _get(node, index)
    if not isinstance(value, str):
        return _poison(random, node, index, _tree)
    at = random.randrange(len(value) + 1)
    spellings: list[Callable[[], str]] = [
        value.upper,
        value.swapcase,
        lambda: "_" + value,
        lambda: value + "/",
        lambda: f" {value}\t",
        lambda: value[:at],
        lambda: value[:at] + random.choice("/_.%?#\\\"'\x00\u0130\ud800 ") + value[at:],
        lambda: value * 2,
    ]
    return _set(node, index, random.choice(spellings)())


def _swap(random: Random, node: Any, index: int, tree: Any) -> None:
    """Put a copy of another place's value here."""
    other, at = random.choice(list(_places(tree)))
    value = _get(other, at)
    if len(_render(value)) < 20_000:
        _set(node, index, _copy(value))


def _number(random: Random, node: Any, index: int, _tree: Any) -> None:
    _set(node, index, random.choice([random.getrandbits(70), -(2**63), 2**31, 1e308, 0.1, -0.0]))


def _wrap(random: Random, node: Any, index: int, _tree: Any) -> None:
    value = _get(node, index)
    _set(node, index, [value] if random.randrange(2) else Pairs([("id", value)]))


def _get(node: Any, index: int) -> Any:
    return node.items[index][1] if isinstance(node, Pairs) else node[index]


def _set(node: Any, index: int, value: Any) -> None:
    if isinstance(node, Pairs):
        node.items[index] = (node.items[index][0], value)
    else:
        node[index] = value


def _copy(value: Any) -> Any:
    if isinstance(value, Pairs):
        return Pairs([(key, _copy(item)) for key, item in value.items])
    return [_copy(item) for item in value] if isinstance(value, list) else value


_OF_LISTS = (_drop, _poison, _twice, _twice, _respell, _respell, _swap, _number, _wrap)
_OF_OBJECTS = (*_OF_LISTS, _rename)


# --- HTTP ----------------------------------------------------------------------------------------


def _script(random: Random, data: bytes) -> bytes:
    replies = data.split(NEXT_REPLY)
    index = random.randrange(len(replies))
    match random.randrange(12):
        case 0:
            del replies[index]
        case 1:
            replies.insert(index, random.choice(replies))
        case _:
            replies[index] = _reply(random, replies[index])
    return NEXT_REPLY.join(replies)


def _reply(random: Random, reply: bytes) -> bytes:
    head, _, body = reply.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    match random.randrange(10):
        case 0:
            code = random.choice(STATUSES + MORE_STATUSES)
            status = b"HTTP/1.1 %d Whatever" % code
        case 1 | 2 | 3 if headers:
            index = random.randrange(len(headers))
            name, _, value = headers[index].partition(b": ")
            match random.randrange(6):
                case 0:
                    del headers[index]
                case 1:
                    headers.insert(index, headers[index])
                case 2:
                    headers[index] = name + b": " + _bytes(random, value)
                case 3:
                    names = (b"Retry-After", b"Location", b"Azure-AsyncOperation", b"ETag")
                    more = (b"Content-Type", b"Content-Encoding", b"x-ms-error-code", b"Date")
                    name = random.choice(names + more + (b"x-ms-request-id", b"WWW-Authenticate"))
                    headers.append(name + b": " + random.choice(HEADER_POISON))
                case _:
                    headers[index] = name + b": " + random.choice(HEADER_POISON)
        case _:
            body = _text(random, body) if body else random.choice(POISON_BODIES)
    return b"\r\n".join([status, *headers]) + b"\r\n\r\n" + body


POISON_BODIES = tuple(render(value) for value in POISON)


# --- lines and bytes -----------------------------------------------------------------------------


def _lines(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    index = random.randrange(len(lines))
    match random.randrange(6):
        case 0:
            del lines[index]
        case 1:
            lines.insert(random.randrange(len(lines) + 1), lines[index])
        case 2:
            lines[index] = _bytes(random, lines[index])
        case 3:
            other = random.choice(lines).partition(b"=")[2]
            lines[index] = lines[index].partition(b"=")[0] + b"=" + other
        case _:
            match = re.match(rb"([^=]*)=", lines[index])
            if match:
                poison = random.choice(TOML_POISON).encode()
                lines[index] = match[1] + b"= " + poison
    return b"\n".join(lines)


def _bytes(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    until = min(len(data), at + 1 + random.randrange(32))
    match random.randrange(10):
        case 0:
            return data[:at]
        case 1 | 2:
            if at == len(data):
                return data
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        case 3:
            return data[:at] + data[until:]
        case 4:
            return data[:until] + data[at:until] * random.choice([1, 2, 100]) + data[until:]
        case 5:
            return b"\xef\xbb\xbf" + data
        case 6:
            return data.decode("utf-8", "replace").encode(random.choice(["utf-16", "utf-32-be"]))
        case 7:
            junk = [b"\x00", b"\xff", b"\xed\xa0\x80", b'"', b"{", b"]", b"\\u", b"\r\n", b"1e999"]
            return data[:at] + random.choice(junk) + data[at:]
        case 8:
            return data[:at] + bytes([random.randrange(256)]) + data[until:]
        case _:
            return data + random.choice([b"\n", b"}", b"\x00", b"{}", data[:64]])
