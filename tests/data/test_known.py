"""What a run remembers of its data, as JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.dataset import Classes, Kind, Labels, Number, Tags
from sqzb.data.known import Known, KnownFile

NAMES = st.lists(st.text(), min_size=1, unique=True).map(tuple)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
KINDS: st.SearchStrategy[Kind] = st.one_of(
    st.builds(Classes, NAMES),
    st.builds(Labels, NAMES),
    st.builds(Tags, NAMES),
    st.builds(Number, FLOATS, FLOATS, FLOATS, FLOATS),
)
FILES = st.lists(st.builds(KnownFile, st.text(), st.text(), st.integers(0))).map(tuple)


@given(KINDS, st.dictionaries(st.sampled_from(["train", "test"]), FILES), NAMES)
def test_json_and_back(
    kind: Kind, files: dict[str, tuple[KnownFile, ...]], text: tuple[str]
) -> None:
    known = Known("name", text, "label", ("kind",), kind, files)
    assert Known.from_json(json.loads(json.dumps(known.to_json()))) == known
    assert known.for_other_files() == Known("name", text, "label", ("kind",), kind)


@pytest.mark.parametrize("key", ["name", "text", "label", "recognised", "kind", "files"])
@pytest.mark.parametrize("value", [None, 7, [7], {"name": "x"}, {"train": [7]}])
def test_other_content_is_refused(key: str, value: object) -> None:
    content = Known("name", ("text",), "label", (), Classes(("a",))).to_json()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Known.from_json({name: content[name] for name in content if name != key})
    if key in ("kind", "files") and value is not None:
        with pytest.raises((KeyError, TypeError, ValueError)):
            Known.from_json(content | {key: value})
