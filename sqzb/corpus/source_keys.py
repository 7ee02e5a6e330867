"""Keys of a source that its kind does not read."""

from collections.abc import Set

from sqzb.corpus.formats import hub
from sqzb.errors import RecipeError
from sqzb.recipe import Source
from sqzb.recipe.values import changed_keys

# The kinds of units that read a key; all kinds read the other keys.
_HUB_ALONE = frozenset([hub.NAME])
_READ_BY = {
    "config": _HUB_ALONE,
    "revision": _HUB_ALONE,
    "split": _HUB_ALONE,
    "streaming": _HUB_ALONE,
    "text": frozenset([hub.NAME, "parquet", "jsonl"]),
    "txt_documents": frozenset(["txt"]),
}


def check_keys(name: str, source: Source, kinds: Set[str]) -> None:
    """Check that a key with another value than its default is read by a kind of the source's units.

    Raises:
        RecipeError: a key has no effect.
    """
    if not kinds:
        return
    unread = [key for key in changed_keys(source) if key in _READ_BY and not kinds & _READ_BY[key]]
    if not unread:
        return
    defaults = Source()
    lines = []
    for key in unread:
        value = getattr(defaults, key)
        lines.append(f"sources.{name}.{key}={'null' if value is None else str(value).lower()}")
    keys = ", ".join(unread)
    raise RecipeError(
        f"Source {name}: {keys} {'has' if len(unread) == 1 else 'have'} no effect, because "
        f"{source.path} is read as {' and '.join(sorted(kinds))}. Leave out what is for another "
        f"kind of source: {' '.join(lines)}"
    )
