"""Kubernetes objects from YAML text, with every fault named by line.

YAML that JSON cannot say (timestamps, sets, keys that are no strings) is refused or read as the
text it is, as an API server would. Each document stands alone: one that is broken hides no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from kube_store.resource import Resource, SourceError, identify

MAX_NODES = 200_000  # of one document, aliases written out; bounds "billion laughs"
MAX_DEPTH = 100
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
} | {_MERGE, "tag:yaml.org,2002:value"}
# A marker in the first column begins a document wherever it stands (YAML 1.2, c-forbidden).
_MARKER = re.compile(r"^---(?=\s|$)", re.MULTILINE)


class _BadNode(ValueError):
    """``line`` counts from 0 within the part that was parsed."""

    def __init__(self, line: int, field: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.line, self.field, self.message, self.remedy = line, field, message, remedy


class _Loader(yaml.CSafeLoader):
    """libyaml's parser; dates stay text. It recurses in C, so depth is bounded as it descends."""

    _depth = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _BadNode(parent.start_mark.line, "", "nested too deep", "correct the document")
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        self._depth -= 1
        super().ascend_resolver()


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str, source: str) -> tuple[list[Resource], list[SourceError]]:
    """The objects of all documents in order, and an error for each that could not be read."""
    resources: list[Resource] = []
    errors: list[SourceError] = []
    for first_line, part in _parts(text):
        loader = _Loader(part)
        node: yaml.Node | None = None
        try:
            while loader.check_node():
                node = None
                node = loader.get_node()
                assert node is not None
                _check(node)
                _collect(
                    loader.construct_document(node), node, source, first_line, resources, errors
                )
        except _BadNode as bad:
            line, name = first_line + bad.line, _name_of(node)
            errors.append(SourceError(source, line, name, bad.field, bad.message, bad.remedy))
        except yaml.MarkedYAMLError as bad:
            mark = bad.problem_mark or bad.context_mark
            line = first_line + (mark.line if mark else 0)
            text_ = ", ".join(filter(None, (bad.context, bad.problem)))
            remedy = "correct the YAML at this line; check indentation, quotes and brackets"
            errors.append(SourceError(source, line, _name_of(node), "", text_, remedy))
        except (yaml.YAMLError, ValueError) as bad:
            remedy = "correct the document; it must be YAML in UTF-8"
            errors.append(SourceError(source, first_line, _name_of(node), "", str(bad), remedy))
        finally:
            loader.dispose()
    return resources, errors


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """(number of the first line, text) of what stands between document markers."""
    starts = [0, *(match.start() for match in _MARKER.finditer(text))]
    line = 1
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield line, text[start:end]
        line += text.count("\n", start, end)


def _collect(
    document: Any,
    node: yaml.Node,
    source: str,
    first_line: int,
    resources: list[Resource],
    errors: list[SourceError],
) -> None:
    """One document: nothing, an object, or a ``List`` of objects."""
    if document is None:
        return
    items = [(document, node, "")]
    if isinstance(document, dict) and document.get("kind") == "List":
        nodes = _value(node, "items")
        listed = document.get("items")
        items = [
            (item, child, f"items[{index}]")
            for index, (item, child) in enumerate(
                zip(listed, nodes.value, strict=True)
                if isinstance(listed, list) and isinstance(nodes, yaml.SequenceNode)
                else ()
            )
        ]
    for item, child, prefix in items:
        line = first_line + child.start_mark.line
        key, wrong = identify(item)
        if key is not None:
            resources.append(Resource(key, item, source, line))
        for error in wrong:
            path = ".".join(filter(None, (prefix, error.field)))
            errors.append(
                SourceError(source, line, _name_of(child), path, error.message, error.remedy)
            )


def _check(root: yaml.Node) -> None:
    """Refuses duplicate keys, what JSON cannot say, and aliases that write out to too much."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, path: str) -> int:
        line = node.start_mark.line
        if id(node) in open_nodes:
            raise _BadNode(line, path, "an alias contains itself", "write the value out")
        if id(node) in sizes:
            return sizes[id(node)]
        open_nodes.add(id(node))
        _check_node(node, path)
        total = 1
        for child_path, child in _children(node, path):
            total += size(child, child_path)
            if total > MAX_NODES:
                message = f"more than {MAX_NODES} values once its aliases are written out"
                raise _BadNode(line, path, message, "split the document, or use fewer aliases")
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        return total

    size(root, "")


def _check_node(node: yaml.Node, path: str) -> None:
    line = node.start_mark.line
    if node.tag not in _PLAIN:
        name = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _BadNode(line, path, f"values of type {name} are not known", "give plain text")
    if node.tag.endswith(":float") and node.value.lower().endswith(("inf", "nan")):
        raise _BadNode(line, path, f"{node.value} is not a number of JSON", "put it in quotes")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, _ in node.value:
        at = key.start_mark.line
        if key.tag == _MERGE:
            continue
        if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith((":str", ":value")):
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
            raise _BadNode(at, path, f"the key {shown} is not a string", "put it in quotes")
        if key.value in seen:
            message = f"the key {key.value} is given twice"
            raise _BadNode(at, f"{path}.{key.value}".lstrip("."), message, "remove one of the two")
        seen[key.value] = at


def _children(node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{path}.{key.value}".lstrip("."), value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}[{index}]", value


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value  # type: ignore[no-any-return]
    return None


def _name_of(node: yaml.Node | None) -> str:
    """``kind namespace/name`` as far as the document says it: for errors."""
    metadata = _value(node, "metadata")
    kind, namespace, name = (
        str(part.value) if isinstance(part, yaml.ScalarNode) else ""
        for part in (_value(node, "kind"), _value(metadata, "namespace"), _value(metadata, "name"))
    )
    return " ".join(filter(None, (kind, "/".join(filter(None, (namespace, name))))))
