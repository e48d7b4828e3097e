"""YAML read strictly: no aliases, no tags, no duplicate keys, bounded; numbers keep their text."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from parentage.manifest.errors import RecipeError

_MAX_YAML = 1 << 20


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
