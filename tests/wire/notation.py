"""The notation of the case files: bytes to send, and patterns for what must come. See README.md.

A text is read into nodes once; `encode` makes bytes of them for one protocol version and one set of names, `Pattern`
compares a packet of the server with them.
"""

import re
import struct

from wire import V5, V31, V311, varint

TOKEN = re.compile(
    r"""\s*(?:
        (?P<comment>\#.*) |
        (?P<string>s?"[^"]*") |
        (?P<group>@\[|@5\(|@3\(|\[|\{|\() |
        (?P<end>[\])}])(?:\*(?P<times>\d+))? |
        (?P<number>(?:u16|u32|v):\d+) |
        (?P<macro>PROTO|CONNACK) |
        (?P<take>=[a-z]) | (?P<give>\$[a-z]) |
        (?P<rest>\*) |
        (?P<byte>\?\?|[0-9a-f]{2}(?:\|[0-9a-f]{2})*)
    )""",
    re.VERBOSE,
)

NAMES = {V31: b"\0\6MQIsdp\3", V311: b"\0\4MQTT\4", V5: b"\0\4MQTT\5"}
"""Protocol Name and Protocol Version."""

CLOSES = {"[": "]", "@[": "]", "{": "}", "(": ")", "@5(": ")", "@3(": ")"}


class Malformed(Exception):
    """A case file says what nobody understands."""


class Group:
    def __init__(self, kind: str, nodes: list, times: int = 1):
        self.kind, self.nodes, self.times = kind, nodes, times


def read(text: str) -> list:
    """Nodes: ("byte", {values} or None for any), ("text", str), ("take"|"give", letter), ("rest",), and groups."""
    stack, openers, at = [[]], [], 0
    while at < len(text.rstrip()):
        found = TOKEN.match(text, at)
        if not found:
            raise Malformed(f"not understood: {text[at:].strip()[:40]!r}")
        at, kind, word = found.end(), found.lastgroup, found.group().strip()
        if kind == "times":
            kind = "end"
        if kind == "group":
            openers.append(word)
            stack.append([])
        elif kind == "end":
            if not openers or CLOSES[openers[-1]] != found.group("end"):
                raise Malformed(f"`{word}` closes nothing in {text!r}")
            nodes = stack.pop()
            stack[-1].append(Group(openers.pop(), nodes, int(found.group("times") or 1)))
        elif kind != "comment":
            stack[-1] += _leaf(kind, word)
    if openers:
        raise Malformed(f"`{openers[-1]}` is not closed in {text!r}")
    return stack[0]


def _leaf(kind: str, word: str) -> list:
    match kind:
        case "string":
            inner = [("text", word[word.index('"') + 1 : -1])]
            return [Group("{", inner)] if word[0] == "s" else inner
        case "number":
            form, value = word.split(":")
            number = int(value)
            data = varint(number) if form == "v" else struct.pack("!H" if form == "u16" else "!I", number)
            return [("byte", {byte}) for byte in data]
        case "macro" if word == "PROTO":
            return [("proto",)]
        case "macro":
            return read("20 [ 00 00 * ]")
        case "take" | "give":
            return [(kind, word[1])]
        case "rest":
            return [("rest",)]
        case _:
            return [("byte", None if word == "??" else {int(part, 16) for part in word.split("|")})]


def flat(nodes: list, version: int, names: dict, variables: dict) -> list:
    """The nodes as a list of sets of allowed values (`None`: any), ("take", letter), and what has a length of its own:
    "length" (a Remaining Length that the pattern leaves open), "properties" and "rest"."""
    out = []
    for node in nodes:
        if isinstance(node, Group):
            out += _group(node, version, names, variables)
        elif node[0] == "byte":
            out.append(node[1])
        elif node[0] == "text":
            out += [{byte} for byte in re.sub(r"\{(\w)\}", lambda m: names[m[1]], node[1]).encode()]
        elif node[0] == "proto":
            out += [{byte} for byte in NAMES[version]]
        elif node[0] == "give":
            out += [{byte} for byte in variables[node[1]]]
        elif node[0] == "take":
            out += [node, node]
        else:
            out.append("rest")
    return out


def _group(group: Group, version: int, names: dict, variables: dict) -> list:
    is_v5 = version == V5
    if group.kind in ("@[", "@5(") and not is_v5 or group.kind == "@3(" and is_v5:
        return []
    if group.kind == "@[" and group.nodes == [("rest",)]:
        return ["properties"]
    inner = flat(group.nodes, version, names, variables)
    if group.kind in ("[", "@["):
        is_open = "rest" in inner or "properties" in inner
        inner = (["length"] if is_open else [{byte} for byte in varint(len(inner))]) + inner
    elif group.kind == "{":
        inner = [{byte} for byte in struct.pack("!H", len(inner))] + inner
    return inner * group.times


def encode(nodes: list, version: int, names: dict, variables: dict) -> bytes:
    values = flat(nodes, version, names, variables)
    if any(not isinstance(value, set) or len(value) != 1 for value in values):
        raise Malformed("what is sent has no alternatives")
    return bytes(byte for value in values for byte in value)


class Pattern:
    """What one packet of the server must look like."""

    def __init__(self, nodes: list, version: int, names: dict, variables: dict):
        self.values = flat(nodes, version, names, variables)

    def matches(self, packet: bytes) -> dict | None:
        """What `=x` took, if the packet is one of these."""
        return _match(self.values, packet, {})


def _match(values: list, data: bytes, taken: dict) -> dict | None:
    at = 0
    for value in values:
        if value == "rest":  # always the last
            return taken
        if at >= len(data):
            return None
        if value in ("length", "properties"):
            length, at = _length(data, at)
            at += length if value == "properties" else 0
            continue
        if isinstance(value, tuple):
            taken[value[1]] = taken.get(value[1], b"")[-1:] + data[at : at + 1]
        elif value is not None and data[at] not in value:
            return None
        at += 1
    return taken if at == len(data) else None


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer, and where it ends."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            break
    return value, at
