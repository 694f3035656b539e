"""As much of Azure Resource Manager as `deploy/azuredeploy.json` needs to be unfolded offline.

Every expression is evaluated, every copy made, every nested template entered with the parameters
that it is given. What is not defined, not given or not known raises, so that a misspelt name is
found. Not done: checking properties against the schemas of Azure, which are not at hand offline.
"""

import base64
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = Any
SUBSCRIPTION = "/subscriptions/11111111-2222-4333-8444-555555555555"
TOKEN = re.compile(r"\s*('(?:[^']|'')*'|[A-Za-z]\w*|\d+|[()\[\],.])")


class Reference(str):
    """What `reference()` leads to, and the properties taken from it; text that names them."""

    __slots__ = ()


@dataclass
class Unfolded:
    """What a deployment would do."""

    resources: dict[str, Json] = field(default_factory=dict)
    """By id, with everything evaluated; without those whose condition is false."""
    skipped: set[str] = field(default_factory=set)
    depends: list[tuple[str, str]] = field(default_factory=list)
    """Id of a resource, and the id or copy that it waits for."""
    referred: list[tuple[str, str]] = field(default_factory=list)
    """Id, and the property path that is read from it."""
    outputs: dict[str, set[str]] = field(default_factory=dict)
    """Of each nested deployment, by id."""
    copies: set[str] = field(default_factory=set)


@dataclass
class Scope:
    """Where expressions of one template are evaluated."""

    template: Json
    given: dict[str, Json]
    at: str
    whole: Unfolded
    used: set[str] = field(default_factory=set)
    index: int | None = None
    bound: dict[str, Json] = field(default_factory=dict)

    @property
    def subscription(self) -> str:
        """The subscription that this scope is in."""
        return "/".join(self.at.split("/")[:3])

    def value(self, node: Json) -> Json:
        """Evaluate everything below a node."""
        if isinstance(node, dict):
            return {key: self.value(each) for key, each in node.items()}
        if isinstance(node, list):
            return [self.value(each) for each in node]
        if isinstance(node, str) and node.startswith("[") and not node.startswith("[["):
            assert node.endswith("]"), node
            tokens = TOKEN.findall(node[1:-1])
            assert "".join(tokens) == re.sub(r"\s+(?=(?:[^']*'[^']*')*[^']*$)", "", node[1:-1])
            found, rest = self._expression(tokens)
            assert rest == [], node
            return found
        return node

    def _expression(self, tokens: list[str]) -> tuple[Json, list[str]]:
        head, *rest = tokens
        if head.startswith("'"):
            return head[1:-1].replace("''", "'"), rest
        if head.isdigit():
            return int(head), rest
        assert rest[0] == "(", f"{head} is not called"
        if head == "lambda":
            return self._function(rest)
        arguments, rest = self._arguments(rest[1:])
        found = self._call(head, arguments)
        path = ""
        while rest and rest[0] in ".[":
            if rest[0] == ".":
                key: Json = rest[1]
                rest = rest[2:]
            else:
                key, rest = self._expression(rest[1:])
                assert rest[0] == "]"
                rest = rest[1:]
            path += f".{key}"
            found = Reference(f"{found}.{key}") if isinstance(found, Reference) else found[key]
        if head == "reference":
            self.whole.referred.append((arguments[0], path.removeprefix(".")))
        return found, rest

    def _arguments(self, tokens: list[str]) -> tuple[list[Json], list[str]]:
        found: list[Json] = []
        while tokens[0] != ")":
            value, tokens = self._expression(tokens)
            found.append(value)
            assert tokens[0] in ",)", tokens
            tokens = tokens[1:] if tokens[0] == "," else tokens
        return found, tokens[1:]

    def _function(self, tokens: list[str]) -> tuple[Callable[[Json], Json], list[str]]:
        name, body = tokens[1].strip("'"), tokens[3:]

        def call(value: Json) -> Json:
            self.bound[name] = value
            return self._expression(body)[0]

        self.bound[name] = ""  # evaluated once to find where it ends
        _, rest = self._expression(body)
        return call, rest[1:]

    def _call(self, name: str, arguments: list[Json]) -> Json:
        if name in ("parameters", "variables"):
            (key,) = arguments
            self.used.add(f"{name}.{key}")
            declared = self.template.get(name, {})
            assert key in declared, f"there is no {key} in {name}"
            if name == "variables":
                return self.value(declared[key])
            if key in self.given:
                return self.given[key]
            return self.value(declared[key]["defaultValue"])
        if name == "copyIndex":
            assert self.index is not None, "copyIndex without a copy"
            return self.index
        if name == "lambdaVariables":
            return self.bound[arguments[0]]
        if name == "subscription":
            return {"id": self.subscription, "subscriptionId": self.subscription.split("/")[2]}
        if name == "subscriptionResourceId":
            return resource_id(self.subscription, *arguments)
        if name == "resourceId":
            return resource_id(self.at, *arguments)
        if name == "resourceGroup":
            assert "/resourceGroups/" in self.at
            return {"id": self.at}
        return FUNCTIONS[name](*arguments)


def resource_id(scope: str, kind: str, *names: str) -> str:
    """Put together the id of a resource."""
    namespace, *kinds = kind.split("/")
    assert len(kinds) == len(names), f"{kind} does not take {names}"
    pairs = "".join(f"/{each}/{name}" for each, name in zip(kinds, names, strict=True))
    return f"{scope}/providers/{namespace}{pairs}"


FUNCTIONS: dict[str, Callable[..., Json]] = {
    "and": lambda *values: all(values),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "contains": lambda values, value: value in values,
    "createObject": lambda *each: dict(zip(each[::2], each[1::2], strict=True)),
    "deployment": lambda: {"location": "westeurope"},
    "empty": lambda value: not value,
    "equals": lambda left, right: left == right,
    "extensionResourceId": resource_id,
    "format": lambda text, *each: re.sub(r"\{(\d+)\}", lambda hit: str(each[int(hit[1])]), text),
    "guid": lambda *each: str(uuid.uuid5(uuid.NAMESPACE_URL, "-".join(each))),
    "if": lambda condition, yes, no: yes if condition else no,
    "length": len,
    "map": lambda values, function: [function(value) for value in values],
    "not": lambda value: not value,
    "reference": lambda at, version: Reference(f"<{at}@{version}>"),
    "replace": lambda text, old, new: text.replace(old, new),
    "toLower": lambda text: text.lower(),
}


def unfold(template: Json, given: dict[str, Json], *, to: str = SUBSCRIPTION) -> Unfolded:
    """Unfold a template that is deployed to a subscription, or to a resource group."""
    whole = Unfolded()
    _enter(template, given, to, whole)
    return whole


def _enter(template: Json, given: dict[str, Json], at: str, whole: Unfolded) -> set[str]:
    declared = template.get("parameters", {})
    assert given.keys() <= declared.keys(), f"nobody asked for {given.keys() - declared.keys()}"
    for name, parameter in declared.items():
        assert name in given or "defaultValue" in parameter, f"{name} is not given"
        allowed = parameter.get("allowedValues")
        assert not allowed or name not in given or given[name] in allowed, f"{name}: {given[name]}"
    scope = Scope(template, given, at, whole)
    for resource in template["resources"]:
        copy = resource.get("copy")
        count = scope.value(copy["count"]) if copy else 1
        if copy:
            whole.copies.add(f"{at}#{copy['name']}")
        for number in range(count):
            scope.index = number if copy else None
            _resource(resource, scope)
    scope.index = None
    found = scope.value(template.get("outputs", {}))
    names = {
        *(f"parameters.{each}" for each in declared),
        *(f"variables.{each}" for each in template.get("variables", {})),
    }
    assert names == scope.used, f"never used: {names - scope.used}"
    return set(found)


def _resource(resource: Json, scope: Scope) -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", resource["apiVersion"]), resource["type"]
    at = scope.at
    if "resourceGroup" in resource:
        at = f"{scope.subscription}/resourceGroups/{scope.value(resource['resourceGroup'])}"
    if "scope" in resource:
        at = scope.value(resource["scope"])
        scope.whole.depends.append((resource["type"], at))
    names = scope.value(resource["name"]).split("/")
    this = resource_id(at, resource["type"], *names)
    for each in resource.get("dependsOn", []):
        target = scope.value(each)
        scope.whole.depends.append((this, target if "/" in target else f"{scope.at}#{target}"))
    nested = resource["properties"].get("template") if "properties" in resource else None
    if nested is None:
        found = scope.value({key: value for key, value in resource.items() if key != "copy"})
    else:
        properties = resource["properties"]
        assert properties["expressionEvaluationOptions"] == {"scope": "inner"}
        parameters = {
            name: each["value"] for name, each in scope.value(properties["parameters"]).items()
        }
        found = {"type": resource["type"]}
        scope.whole.outputs[this] = _enter(nested, parameters, at, scope.whole)
    if scope.value(resource.get("condition", True)):
        assert this not in scope.whole.resources, f"twice: {this}"
        scope.whole.resources[this] = found
    else:
        scope.whole.skipped.add(this)
