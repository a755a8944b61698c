"""How ``sidegate-istioctl`` was called: istioctl's own words, read the way istioctl reads them.

Source: istioctl's ``--help``; pflag, "Command line flag syntax".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from istioctl_patch import tools
from istioctl_patch.names import ROOT_NAMESPACE

_SHORT = {
    "A": "all-namespaces", "S": "suppress", "c": "kubeconfig", "d": "manifests", "f": "filename",
    "h": "help", "i": "istioNamespace", "k": "use-kube", "n": "namespace", "o": "output",
    "r": "revision", "s": "set", "v": "verbose", "y": "skip-confirmation",
}  # fmt: skip
# Flags whose value may be the next word; of all others it is in the same one, after "=".
_VALUED = frozenset({
    "as", "as-group", "as-uid", "context", "failure-threshold", "filename", "istioNamespace",
    "istioctl", "kubeclient-timeout", "kubeconfig", "manifests", "namespace", "output",
    "output-threshold", "revision", "set", "suppress", "vklog",
})  # fmt: skip
_KUBECTLS = ("kubeconfig", "context", "as", "as-group", "as-uid")
_OURS = ("istioctl", "stock-envoy")


@dataclass(frozen=True, slots=True)
class Call:
    """``arguments`` are for istioctl, without our own flags; ``words`` those that are no flags;
    ``flags`` have long names, each with all values that were given, "" where it has none."""

    istioctl: str
    arguments: tuple[str, ...]
    words: tuple[str, ...] = ()
    flags: dict[str, list[str]] = field(default_factory=dict)

    def flag(self, name: str, default: str = "") -> str:
        """The last value wins, as in istioctl."""
        return self.flags.get(name, [default])[-1]

    def has(self, name: str) -> bool:
        """Whether a switch is on."""
        return name in self.flags and self.flag(name).lower() not in ("false", "f", "0")

    @property
    def stock_envoy(self) -> bool:
        return self.has("stock-envoy")

    @property
    def istio_namespace(self) -> str:
        return self.flag("istioNamespace", ROOT_NAMESPACE)

    @property
    def cluster(self) -> tuple[str, ...]:
        """Flags by which kubectl finds the same cluster, as the same user."""
        return tuple(
            f"--{name}={value}" for name in _KUBECTLS for value in self.flags.get(name, [])
        )

    @property
    def set_values(self) -> dict[str, str]:
        """``--set`` by path."""
        pairs = (each.partition("=") for each in self.flags.get("set", []))
        return {path: value for path, _, value in pairs}


def parse(arguments: Sequence[str]) -> Call:
    """Takes our own flags out: ``--istioctl PATH``, ``--stock-envoy``. Raises Missing."""
    kept: list[str] = []
    words: list[str] = []
    flags: dict[str, list[str]] = {}
    for name, value, spelled in _read(list(arguments)):
        if name:
            flags.setdefault(name, []).append(value)
        else:
            words.append(value)
        if name not in _OURS:
            kept += spelled
    given = flags.get("istioctl", [""])[-1]
    return Call(tools.istioctl(given), tuple(kept), tuple(words), flags)


def _read(rest: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Long name ("" for a word), value, and how it was spelled."""
    while rest:
        word = rest.pop(0)
        if word == "--":
            yield from (("", each, [each]) for each in [word, *rest])
            return
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and word != "-":
            name = _SHORT.get(word[1], word[1])
            equals, value = word[2:], word[2:].removeprefix("=")
        else:
            yield "", word, [word]
            continue
        spelled = [word]
        if name in _VALUED and not equals and rest:
            value = rest.pop(0)
            spelled.append(value)
        yield name, value, spelled
