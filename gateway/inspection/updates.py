"""What later revisions of a PDF changed in what was signed before: our own judgement of incremental updates.

Everything that a signed revision shows hangs on its objects. So every object that was there and reads differently now
is a change of the signed document, unless it has one of a few roles and differs only in the ways that putting on a
further signature needs (ISO 32000-1 12.7, 12.8). New objects are harmless by themselves, as nothing old refers to them;
they show up only through those roles. Where an old object did refer to a number that did not exist, defining it later
is a change too (shadow attacks replace content that way).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from gateway.inspection.revisions import Dict, Document, Malformed, Ref, Stream, View

MAX_PAGES = 100_000


class Level(IntEnum):
    """How far a later state differs, mildest first."""

    NONE = 0
    VALIDATION = 1  # validation data, file metadata: nothing that shows
    SIGNATURES = 2  # further signature fields with their appearance
    ADDITIONS = 3  # annotations, form values: shows, without touching what was signed
    CHANGED = 4  # what was signed reads differently now


@dataclass(slots=True)
class Change:
    level: Level = Level.NONE
    reasons: list[str] = field(default_factory=list)

    def add(self, level: Level, reason: str) -> None:
        self.level = max(self.level, level)
        if level >= Level.ADDITIONS and reason not in self.reasons and len(self.reasons) < 20:
            self.reasons.append(reason)


#: Keys of a signature's widget that filling it in sets.
_FILLED = frozenset(
    {"V", "AP", "F", "M", "MK", "DA", "Rect", "P", "BS", "Border", "AS", "Lock", "SV", "DR", "NM", "Ff", "Q"}
)
#: Keys of a page that may change: its list of annotations (looked at one by one) and what never shows.
_PAGE = frozenset({"Annots", "LastModified", "Tabs", "PieceInfo", "StructParents"})
_CATALOG = frozenset(
    {"AcroForm", "DSS", "Extensions", "Version", "Metadata", "Perms", "LastModified", "PieceInfo", "StructTreeRoot"}
)
_FORM = frozenset({"Fields", "SigFlags", "DR", "DA", "NeedAppearances", "Q"})


def judge(document: Document, old: View, new: View) -> Change:
    """How `new` differs from `old`, an earlier revision. Raises Malformed."""
    return _Judge(document, old, new).result()


class _Judge:
    def __init__(self, document: Document, old: View, new: View) -> None:
        self.document, self.old, self.new = document, old, new
        self.change = Change()
        self.changed: dict[int, tuple[Any, Any]] = {}
        self.added: set[int] = set()

    def result(self) -> Change:
        if self.old.first == self.new.first:
            return self.change
        self._collect()
        self._dangling()
        old_root, new_root = self.old.trailer.get("Root"), self.new.trailer.get("Root")
        if not isinstance(old_root, Ref) or old_root != new_root:
            self.change.add(Level.CHANGED, "the file has another catalogue")
            return self.change
        if self.old.trailer.get("Encrypt") != self.new.trailer.get("Encrypt"):
            self.change.add(Level.CHANGED, "the file's encryption was changed")
        self._catalogue(old_root)
        self._pages()
        self._aside(self.old.trailer.get("Info"), frozenset())
        for number, (before, after) in self.changed.items():
            self.change.add(Level.CHANGED, f"object {number} ({_what(before, after)}) was changed")
        if self.change.level is Level.NONE and (self.added or self.old.first):
            self.change.add(Level.VALIDATION, "")
        return self.change

    def _settled(self, number: int) -> tuple[Any, Any] | None:
        """Take an object out of the list of changed ones: its change is judged by its role."""
        return self.changed.pop(number, None)

    # -- which objects differ ----------------------------------------------------------------------------------------

    def _collect(self) -> None:
        numbers: set[int] = set()
        for section in self.document.sections[self.new.first : self.old.first]:
            numbers.update(section.entries)
            numbers.update(section.hybrid)
        numbers.discard(0)
        for number in numbers:
            before, after = self.old.entry(number), self.new.entry(number)
            if before == after:
                continue
            if before is None or before[0] == 0:
                if after is not None and after[0] != 0:
                    self.added.add(number)
                continue
            was = self._value(self.old, number)
            now = self._value(self.new, number)
            if isinstance(was, Stream) and was.head.get("Type") == "XRef":
                continue  # structure of the file, no content
            if isinstance(was, Stream) and was.head.get("Type") == "ObjStm":
                if number in self.old.containers:
                    self.change.add(Level.CHANGED, f"object stream {number} was replaced, and its members with it")
                continue
            if was is None and now is not None:
                self.added.add(number)
            elif not self._same(was, now):
                self.changed[number] = (was, now)

    def _value(self, view: View, number: int) -> Any:
        entry = view.entry(number)
        if entry is None or entry[0] == 0:
            return None
        return view.get(Ref(number, entry[2] if entry[0] == 1 else 0))

    def _same(self, was: Any, now: Any) -> bool:
        if isinstance(was, Stream) and isinstance(now, Stream):
            return was.start == now.start or (
                was.head == now.head and self._raw(was, self.old) == self._raw(now, self.new)
            )
        return type(was) is type(now) and was == now

    def _raw(self, stream: Stream, view: View) -> bytes:
        length = view.get(stream.head.get("Length"))
        if not isinstance(length, int) or length < 0:
            raise Malformed("stream without a length")
        return self.document.data[stream.start : stream.start + length]

    def _dangling(self) -> None:
        for number in self.added:
            if self.document.referrers(number, self.old):
                self.change.add(Level.CHANGED, f"object {number} was referred to before signing and defined afterwards")

    # -- roles -------------------------------------------------------------------------------------------------------

    def _catalogue(self, root: Ref) -> None:
        pair = self._settled(root.number)
        before, after = pair if pair else (self.old.get(root), self.new.get(root))
        if not isinstance(before, Dict) or not isinstance(after, Dict):
            raise Malformed("no catalogue")
        for key in _differing(before, after):
            if key not in _CATALOG:
                self.change.add(Level.CHANGED, f"/{key} of the catalogue was changed")
        self._form(before.get("AcroForm"), after.get("AcroForm"), root.number)
        for key in ("Metadata", "DSS", "Extensions"):
            self._aside(before.get(key), frozenset({root.number}))
        self._permissions(before.get("Perms"), after.get("Perms"))
        self._structure(before.get("StructTreeRoot"), after.get("StructTreeRoot"))

    def _aside(self, value: Any, holders: frozenset[int], depth: int = 0) -> None:
        """Parts that show nothing may change at will: file information, metadata, validation data. Only when nothing
        else of the signed revision refers to them: a page's font that is also called file information is a font."""
        if depth > 6:
            return
        if isinstance(value, Ref):
            if value.number in self.changed and self.document.referrers(value.number, self.old) <= holders:
                self._settled(value.number)
            holders = holders | {value.number}
            value = self.old.get(value)
        for item in value.values() if isinstance(value, Dict) else value if isinstance(value, list) else ():
            self._aside(item, holders, depth + 1)

    def _permissions(self, before: Any, after: Any) -> None:
        if isinstance(before, Ref):
            self._settled(before.number)
        was, now = self.old.get(before) or Dict(), self.new.get(after) or Dict()
        for key in _differing(was, now):
            if key in was:
                self.change.add(Level.CHANGED, f"/{key} of the permissions was changed")
            else:
                self.change.add(Level.SIGNATURES, "")

    def _structure(self, before: Any, after: Any) -> None:
        """Tagged files: a tool that puts on a signature tags its widget. The tree describes content and shows none;
        still a signature that stands must cover the change."""
        if before != after:
            self.change.add(Level.SIGNATURES, "")
        tree = self.old.get(before)
        if not isinstance(tree, Dict) or not self.changed:
            return
        allowed = {
            one.number: keys
            for one, keys in (
                (before, {"K", "ParentTree", "ParentTreeNextKey", "IDTree", "RoleMap", "ClassMap"}),
                (tree.get("ParentTree"), {"Nums", "Kids", "Limits"}),
            )
            if isinstance(one, Ref)
        }
        for number, (was, now) in list(self.changed.items()):
            if not isinstance(was, Dict) or not isinstance(now, Dict):
                continue
            keys = allowed.get(number, {"K", "Pg"} if was.get("Type") == "StructElem" else set())
            if set(_differing(was, now)) <= keys:
                self._settled(number)
                self.change.add(Level.SIGNATURES, "")

    def _form(self, before: Any, after: Any, root: int) -> None:
        if isinstance(before, Ref):
            self._settled(before.number)
        was, now = self.old.get(before), self.new.get(after)
        if was is None:
            was = Dict()
        if now is None:
            now = Dict()
        if not isinstance(was, Dict) or not isinstance(now, Dict):
            raise Malformed("the form is no dictionary")
        for key in _differing(was, now):
            if key not in _FORM:
                self.change.add(Level.CHANGED, f"/{key} of the form was changed")
        if self.new.get(now.get("NeedAppearances")) is True and self.old.get(was.get("NeedAppearances")) is not True:
            self.change.add(Level.ADDITIONS, "the form asks viewers to redraw its fields")
        look = [key for key in ("DA", "Q") if was.get(key) != now.get(key)]
        if (look or self._fonts(was, self.old) != self._fonts(now, self.new)) and self._drawn_by_viewers(was):
            self.change.add(Level.CHANGED, "the letters of form fields that viewers draw themselves were changed")
        holders = frozenset({root, before.number} if isinstance(before, Ref) else {root})
        self._resources(was.get("DR"), now.get("DR"), holders)
        self._fields(was.get("Fields"), now.get("Fields"), 0)

    def _fonts(self, form: Dict, view: View) -> frozenset[str]:
        """Names of the fonts that default appearances may use."""
        resources = view.get(form.get("DR"))
        fonts = view.get(resources.get("Font")) if isinstance(resources, Dict) else None
        return frozenset(fonts) if isinstance(fonts, Dict) else frozenset()

    def _drawn_by_viewers(self, form: Dict) -> bool:
        """Whether a field that is no signature has no appearance of its own: a viewer draws its value with the default
        appearance and the form's fonts, so a font that is added later shows other letters."""
        if self.old.get(form.get("NeedAppearances")) is True:
            return True
        waiting = list(self.old.get(form.get("Fields")) or ())
        for _, page in pages(self.old):
            waiting += self.old.get(page.get("Annots")) or ()
        seen: set[int] = set()
        while waiting:
            one = waiting.pop()
            if isinstance(one, Ref):
                if one.number in seen or len(seen) > MAX_PAGES:
                    continue
                seen.add(one.number)
            field = self.old.get(one)
            if not isinstance(field, Dict):
                continue
            kids = self.old.get(field.get("Kids"))
            waiting += kids if isinstance(kids, list) else ()
            widget = field.get("Subtype") == "Widget" or not kids
            bare = field.get("Subtype") in (None, "Widget") and widget and "AP" not in field
            if bare and self._kind(one, self.old) not in ("Sig", ""):
                return True
        return False

    def _resources(self, before: Any, after: Any, holders: frozenset[int], depth: int = 0, kind: str = "") -> None:
        """The form's default resources may grow; what was there stays. Resources that a page shares may not even grow,
        because its text may use a name that does not exist yet. Tools that build Adobe's layered appearance put the
        newest signature's form under /XObject /FRM: default appearances are text and draw no XObject, so a new object
        may take that name when a signature that stands covers it."""
        if isinstance(before, Ref):
            if self.changed and not self.document.referrers(before.number, self.old) <= holders:
                return  # a page has them too: whatever changed in them stays among the changed objects
            self._settled(before.number)
            holders = holders | {before.number}
        was, now = self.old.get(before), self.new.get(after)
        if was is None:
            return
        if not isinstance(was, Dict) or not isinstance(now, Dict):
            self.change.add(Level.CHANGED, "the form's resources were changed")
            return
        for key, value in was.items():
            inner = self.old.get(value)
            if depth < 1 and isinstance(inner, Dict):  # the names of a kind; what a name stands for stays as it was
                self._resources(value, now.get(key), holders, depth + 1, key)
            elif now.get(key) == value:
                continue
            elif kind == "XObject" and isinstance(now.get(key), Ref) and now[key].number in self.added:
                self.change.add(Level.SIGNATURES, "")
            else:
                self.change.add(Level.CHANGED, f"/{key} of the form's resources was changed")

    def _fields(self, before: Any, after: Any, depth: int) -> None:
        if depth > 16:
            raise Malformed("fields are nested too deeply")
        if isinstance(before, Ref):
            self._settled(before.number)
        was, now = self.old.get(before) or [], self.new.get(after) or []
        if not isinstance(was, list) or not isinstance(now, list):
            raise Malformed("fields are no array")
        for one in was:
            if one not in now:
                self.change.add(Level.CHANGED, "a form field was removed")
            elif isinstance(one, Ref):
                self._field(one, depth)
        for one in now:
            if one not in was:
                if self._is_page(one):
                    self.change.add(Level.CHANGED, "something that is no form field was added to the form")
                elif self._kind(one, self.new) == "Sig":
                    self.change.add(Level.SIGNATURES, "")
                else:
                    self.change.add(Level.ADDITIONS, "a form field was added")

    def _field(self, reference: Ref, depth: int) -> None:
        pair = self._settled(reference.number)
        value = self.old.get(reference)
        if not isinstance(value, Dict):
            return
        if pair is not None:
            before, after = pair
            if not isinstance(after, Dict):
                self.change.add(Level.CHANGED, "a form field was removed")
                return
            differing = set(_differing(before, after)) - {"Kids"}
            signature = self._kind(reference, self.old) == "Sig"
            if not differing:
                pass
            elif signature and self.old.get(before.get("V")) is None and differing <= _FILLED:
                self.change.add(Level.SIGNATURES, "")
            elif signature:
                self.change.add(Level.CHANGED, "a signature field that was filled or fixed before was changed")
            elif differing <= {"V", "AP", "AS", "M", "I"}:
                self.change.add(Level.ADDITIONS, f"form field {_text(before.get('T'))} was filled in")
                looks = self.old.key(before, "AP")
                for look in looks.values() if isinstance(looks, Dict) else ():
                    if isinstance(look, Ref):
                        self._settled(look.number)
            else:
                self.change.add(Level.CHANGED, f"form field {_text(before.get('T'))} was changed")
        after_value = pair[1] if pair else self.new.get(reference)
        if "Kids" in value or (isinstance(after_value, Dict) and "Kids" in after_value):
            self._fields(
                value.get("Kids"), after_value.get("Kids") if isinstance(after_value, Dict) else None, depth + 1
            )

    def _is_page(self, reference: Any) -> bool:
        """No annotation or field: an array may be the page's contents or the page tree under another name."""
        value = self.new.get(reference)
        if not isinstance(value, Dict) or self.new.get(value.get("Type")) not in (None, "Annot"):
            return True
        return isinstance(self.new.get(value.get("Contents")), (Stream, list))

    def _kind(self, reference: Any, view: View) -> str:
        """The (inherited) type of a field or widget; a field with children has the type that all of them have."""
        value = view.get(reference)
        for _ in range(16):
            if not isinstance(value, Dict):
                return ""
            kind = view.get(value.get("FT"))
            if kind is not None:
                return str(kind)
            if "Parent" not in value:
                break
            value = view.get(value["Parent"])
        kids = view.get(value.get("Kids")) if isinstance(value, Dict) else None
        if isinstance(kids, list) and kids and len(kids) < 1000:
            kinds = {str(view.key(kid, "FT")) for kid in kids}
            return kinds.pop() if len(kinds) == 1 else ""
        return ""

    # -- pages -------------------------------------------------------------------------------------------------------

    def _pages(self) -> None:
        """Page objects differ in their annotations only, and there only by additions. Page tree nodes must not differ
        at all: they are left in the list of changed objects."""
        if not self.changed:
            return
        for reference, page in pages(self.old):
            if not self.changed:
                return
            pair = self._settled(reference.number)
            now = pair[1] if pair else page
            if not isinstance(now, Dict):
                self.change.add(Level.CHANGED, "a page was removed")
                continue
            for key in _differing(page, now):
                if key not in _PAGE:
                    self.change.add(Level.CHANGED, f"/{key} of a page was changed")
            self._annotations(page.get("Annots"), now.get("Annots"))

    def _annotations(self, before: Any, after: Any) -> None:
        if isinstance(before, Ref):
            self._settled(before.number)
        was, now = self.old.get(before) or [], self.new.get(after) or []
        if not isinstance(was, list) or not isinstance(now, list):
            raise Malformed("annotations are no array")
        for one in was:
            if one not in now:
                self.change.add(Level.CHANGED, "an annotation was removed")
        for one in now:
            if one in was:
                continue
            value = self.new.get(one)
            if value is None:
                continue
            if self._is_page(one):
                self.change.add(Level.CHANGED, "something that is no annotation was added to a page")
            elif "A" in value or "AA" in value:
                self.change.add(Level.ADDITIONS, "an annotation with an action was added")
            elif value.get("Subtype") == "Widget" and self._kind(one, self.new) == "Sig":
                self.change.add(Level.SIGNATURES, "")
            else:
                self.change.add(Level.ADDITIONS, f"an annotation ({value.get('Subtype')}) was added")


def pages(view: View) -> Iterator[tuple[Ref, Dict]]:
    """The pages in order. Raises Malformed on loops."""
    waiting: list[Any] = [view.key(view.trailer.get("Root")).get("Pages")] if view.key(view.trailer.get("Root")) else []
    seen: set[int] = set()
    while waiting:
        reference = waiting.pop()
        value = view.get(reference)
        if not isinstance(value, Dict) or not isinstance(reference, Ref):
            continue
        if reference.number in seen or len(seen) > MAX_PAGES:
            raise Malformed("the page tree has a loop")
        seen.add(reference.number)
        kids = view.get(value.get("Kids"))
        if isinstance(kids, list) and value.get("Type") != "Page":
            waiting.extend(reversed(kids))
        else:
            yield reference, value


def _differing(before: Dict, after: Dict) -> list[str]:
    return [key for key in {*before, *after} if key not in before or key not in after or before[key] != after[key]]


def _what(before: Any, after: Any) -> str:
    value = before.head if isinstance(before, Stream) else before
    if isinstance(value, Dict):
        return " ".join(str(value[key]) for key in ("Type", "Subtype") if key in value) or (
            "stream" if isinstance(before, Stream) else "dictionary"
        )
    return type(value).__name__ + (" removed" if after is None else "")


def _text(value: Any) -> str:
    return value.decode("latin-1", "replace")[:40] if isinstance(value, bytes) else ""
