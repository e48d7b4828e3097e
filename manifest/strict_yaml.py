"""YAML read strictly: no aliases, no tags, no duplicate keys, bounded; numbers keep their text.

`parse_yaml` reads what we and mergekit write; `parse_marked` reads what people write into model cards:
scalars as YAML 1.2 has them (`no` is a language), and where every key stands.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar, Final

import msgspec
import yaml

from parentage.manifest.errors import RecipeError, YamlError

_MAX_YAML = 1 << 20
_MAX_DEPTH: Final = 64
#: YAML 1.2, core schema.
_WORDS: Final = dict.fromkeys(("null", "Null", "NULL", "~", ""), None) | {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
#: From the root to a value: keys and indices.
Keys = tuple[str | int, ...]


class _Strict(yaml.SafeLoader):
    """SafeLoader whose only scalars are null, bool, int and str: 0.6 stays "0.6"."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # PyYAML reads it from the class
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.rsplit(":", 1)[1] in {"null", "bool", "int"}
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: they make small files large and values shared."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="alias not allowed")
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """Refuse half a character, which nobody can write down again."""
        value: str = super().construct_scalar(node)
        if _is_broken(value):
            raise yaml.MarkedYAMLError(
                problem=f"half a character: {value!r}", problem_mark=node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  (PyYAML's signature)
        """Refuse duplicate keys, which PyYAML lets the last one win."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key stands twice or is no text: {key!r}",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _is_broken(text: str) -> bool:
    """Say whether a text has half of a surrogate pair in it."""
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def parse_yaml(data: bytes, *, where: str) -> object:
    """Parse one YAML document.

    Raises:
        RecipeError: with PyYAML's line and column.
    """
    if len(data) > _MAX_YAML:
        raise RecipeError("YAML too large", where=where, expected=f"at most {_MAX_YAML} bytes")
    try:
        return yaml.load(data.decode("utf-8"), Loader=_Strict)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RecipeError(
            "not valid YAML", where=where, found=" ".join(str(error).split())
        ) from error


class Span(msgspec.Struct, frozen=True):
    """Where a value stands.

    Attributes:
        start, end: character offsets.
        style: of a scalar: "", "'", '"', "|" or ">"; of a list or mapping: "flow" or "block".
    """

    start: int
    end: int
    style: str


class Marked(msgspec.Struct, frozen=True):
    """A document, and where its parts stand.

    Attributes:
        value: of null, bool, str, list and dict; every number is its text.
        starts: character offset of each key, and of each item of a list, by path.
        spans: of each value, by path.
    """

    value: Any
    starts: dict[Keys, int]
    spans: dict[Keys, Span]


def parse_marked(text: str, *, where: str, limit: int) -> Marked:
    """Parse one YAML document with the offset of every key; an empty one is None.

    Args:
        text: the document.
        where: how errors name it.
        limit: refuse anything larger, before parsing (characters).

    Raises:
        YamlError: not YAML, too large, too deep, an alias, a tag, a key that is no text or stands twice.
    """
    if len(text) > limit:
        raise YamlError(
            "YAML too large",
            where=where,
            expected=f"at most {limit:,} characters",
            found=f"{len(text):,}",
        )
    # libyaml where PyYAML has it: a card with a thousand scores is read in milliseconds.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(where)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlError(
            "not valid YAML", where=where, found=" ".join(str(error).split())
        ) from error
    return Marked(builder.value, builder.starts, builder.spans)


def _mark(event: yaml.Event) -> Any:  # noqa: ANN401  (PyYAML has two classes of marks)
    return event.start_mark


def _end(event: yaml.Event) -> int:
    mark: Any = event.end_mark
    return int(mark.index)


class _Open(msgspec.Struct):
    """A list or mapping that has not ended."""

    value: list[Any] | dict[str, Any]
    path: Keys
    start: int
    style: str
    key: str | None = None


class _Builder:
    """Builds values from events; nothing recurses, so that depth is ours to bound."""

    def __init__(self, where: str) -> None:
        self.value: Any = None
        self.starts: dict[Keys, int] = {}
        self.spans: dict[Keys, Span] = {}
        self._where, self._stack, self._documents = where, list[_Open](), 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise YamlError("more than one YAML document", where=self._where)
        elif isinstance(event, yaml.AliasEvent):
            raise self._bad("alias not allowed", event, str(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self._stack.pop()
            self.spans[ended.path] = Span(ended.start, _end(event), ended.style)
        elif isinstance(event, yaml.ScalarEvent):
            is_key = bool(self._stack) and self._stack[-1].key is None
            path = self._put(event, self._scalar(event))
            if not (is_key and isinstance(self._stack[-1].value, dict)):
                self.spans[path] = Span(_mark(event).index, _end(event), event.style or "")
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag is not None or event.anchor is not None:
            raise self._bad("tag or anchor not allowed", event, str(event.tag or event.anchor))
        if len(self._stack) >= _MAX_DEPTH:
            raise self._bad("YAML nested too deeply", event, f"more than {_MAX_DEPTH} levels")
        value: list[Any] | dict[str, Any]
        value = {} if isinstance(event, yaml.MappingStartEvent) else []
        style = "flow" if event.flow_style else "block"
        self._stack.append(_Open(value, self._put(event, value), _mark(event).index, style))

    def _put(self, event: yaml.Event, value: Any) -> Keys:  # noqa: ANN401  (a YAML value)
        """Put a value where it belongs, and return its path; a mapping's scalar may be a key."""
        if not self._stack:
            self.value = value
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            top.value.append(value)
            self.starts[path] = _mark(event).index
            return path
        if top.key is None:
            # A key is its text, whatever it would be as a value: `on`, `null`, `1`.
            key = event.value if isinstance(event, yaml.ScalarEvent) else None
            if key is None or key in top.value:
                raise self._bad("key stands twice or is no text", event, str(key))
            top.key, top.value[key] = key, None
            path = (*top.path, key)
            self.starts[path] = _mark(event).index
            return path
        path = (*top.path, top.key)
        top.value[top.key], top.key = value, None
        return path

    def _scalar(self, event: yaml.ScalarEvent) -> bool | str | None:
        if event.tag is not None or event.anchor is not None:
            raise self._bad("tag or anchor not allowed", event, str(event.tag or event.anchor))
        text: str = event.value
        if _is_broken(text):
            raise self._bad("half a character", event, text)
        return _WORDS.get(text, text) if event.implicit[0] else text

    def _bad(self, what: str, event: yaml.Event, found: str) -> YamlError:
        line = _mark(event).line + 1
        return YamlError(what, where=f"{self._where}: line {line} of its YAML", found=found)
