"""Domains that only look like an official one (rules.md 1.1). Pure."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Container, Iterable

import idna

# Letters of other scripts, and digits, that a reader takes for the Latin letter.
_LOOKS_LIKE = str.maketrans(
    {
        "а": "a", "в": "b", "е": "e", "к": "k", "м": "m", "н": "h", "о": "o", "р": "p", "с": "c", "т": "t", "у": "y",
        "х": "x", "і": "i", "ї": "i", "ј": "j", "ѕ": "s", "ԁ": "d", "ԛ": "q", "ԝ": "w", "һ": "h", "ӏ": "l", "г": "r",
        "п": "n", "ь": "b", "ё": "e", "ѵ": "v", "υ": "u", "α": "a", "β": "b", "ε": "e", "η": "n", "ι": "i", "κ": "k",
        "μ": "m", "ν": "v", "ο": "o", "ρ": "p", "σ": "o", "τ": "t", "χ": "x", "γ": "y", "ω": "w", "ո": "n", "ս": "u",
        "օ": "o", "հ": "h", "ց": "g", "ɡ": "g", "ɑ": "a", "ı": "i", "ł": "l", "đ": "d", "ð": "d", "ʋ": "v", "ⱱ": "v",
        "0": "o", "1": "l", "5": "s",
    }
)  # fmt: skip
#: Scripts with letters that look Latin. Others beside Latin letters deceive nobody: Japanese names mix them.
_CONFUSABLE = {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}
#: A name this long is not met by chance: within another word, or with one letter wrong.
_LONG = 9


class Lookalikes:
    """What only looks like one of the official domains, such as `gov.vn`, `chinhphu.vn`; their subdomains are official
    too. Built once for ten thousand of them, asked in microseconds."""

    def __init__(self, official: Iterable[str]) -> None:
        self._names = {name.strip().lower().strip(".") for name in official} - {""}
        self._looks = {_skeleton(name): name for name in sorted(self._names)}
        self._words = {tuple(_words(looks)): name for looks, name in self._looks.items()}
        long = {looks: name for looks, name in self._looks.items() if len(looks) >= _LONG}
        self._squeezed = {"".join(_words(looks)): name for looks, name in long.items()}
        self._spelt: dict[int, list[str]] = {}
        for looks in long:
            self._spelt.setdefault(len(looks), []).append(looks)

    def imitated(self, domain: str) -> tuple[str, str]:
        """The official domain that this one only looks like, and in which way; twice nothing when it is one or looks
        like none. `mixed_script` names none.

        domain: as written, U- or A-labels. Ways: `trailing_dot`, `homograph` (other letters, same look),
        `mixed_script`, `embedded` (`gov.vn.example.com`), `hyphen` (`binhduong-gov.vn`), `typo` (one letter wrong).
        """
        given = domain.strip().lower()
        if not given or self._under(given, self._names):
            return "", ""
        bare = given.rstrip(".")
        if self._under(bare, self._names):
            return bare, "trailing_dot"
        shown = _unicode_domain(bare)
        skeleton = _skeleton(shown)
        if skeleton != shown and (looks := self._under(skeleton, self._looks)):
            return skeleton.removesuffix(looks) + self._looks[looks], "homograph"
        if any((scripts := _scripts(label)) & _CONFUSABLE and "LATIN" in scripts for label in shown.split(".")):
            return "", "mixed_script"
        labels, words = skeleton.split("."), _words(skeleton)
        if name := self._within(labels[:-1]):
            return name, "embedded"
        if name := self._within(words) or self._run_together(labels):
            return name, "hyphen"
        near = (n for size in (-1, 0, 1) for n in self._spelt.get(len(skeleton) + size, ()) if _near(skeleton, n))
        name = min(near, default="")
        return (self._looks[name], "typo") if name else ("", "")

    @staticmethod
    def _under(domain: str, names: Container[str]) -> str:
        """The name that is the domain or one above it."""
        labels = domain.split(".")
        return next((name for n in range(len(labels)) if (name := ".".join(labels[n:])) in names), "")

    def _within(self, words: list[str]) -> str:
        """The official domain whose words stand among these in a row, the longest."""
        runs = ((first, last) for first in range(len(words)) for last in range(first + 1, len(words) + 1))
        found = [self._words[run] for first, last in runs if (run := tuple(words[first:last])) in self._words]
        return max(found, key=len, default="")

    def _run_together(self, labels: list[str]) -> str:
        """`binhduonggov.vn`: a long official name without its dots, from the beginning of a label on. Names in `gov.vn`
        are met behind other words, too; `baochinhphu.vn` is a newspaper and imitates nobody."""
        for number in range(len(labels)):
            text = "".join(_words(".".join(labels[number:])))
            for last in range(_LONG - 1, len(text) + 1):
                starts = range(last) if text.endswith("govvn", 0, last) else (0,)
                for first in starts:
                    if name := self._squeezed.get(text[first:last]):
                        return name
        return ""


def _words(domain: str) -> list[str]:
    return [word for word in re.split(r"[.\-_]+", domain) if word]


def _unicode_domain(domain: str) -> str:
    labels = []
    for label in domain.split("."):
        if label.startswith("xn--"):
            try:
                label = idna.decode(label)
            except (idna.IDNAError, UnicodeError):
                with contextlib.suppress(UnicodeError, ValueError):
                    label = label[4:].encode("ascii").decode("punycode")
        labels.append(label)
    return ".".join(labels)


def _skeleton(domain: str) -> str:
    """The domain as it looks: compatibility forms, look-alikes and marks folded to plain Latin letters."""
    text = unicodedata.normalize("NFKC", domain).lower().translate(_LOOKS_LIKE)
    text = "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return _merged(re.sub("[\u3002\uff0e\uff61]", ".", text))


def _merged(domain: str) -> str:
    """Pairs that look like one letter as that letter."""
    return domain.replace("rn", "m").replace("vv", "w")


def _scripts(label: str) -> set[str]:
    found = set()
    for sign in label:
        if sign.isalpha():
            name = unicodedata.name(sign, "?").partition(" ")[0]
            found.add("LATIN" if name in ("LATIN", "FULLWIDTH") else name)
    return found


def _near(one: str, other: str) -> bool:
    """One letter added, lost, changed, or two neighbours swapped."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
