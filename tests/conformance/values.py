"""Hypothesis strategies for what a store must carry exactly."""

from __future__ import annotations

from hypothesis import strategies as st

texts = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=12
)
utf8 = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=40).map(str.encode),
    st.sampled_from(
        [
            b'{"a":1.10}',
            b'{ "b": 12345678901234567890, "a":1e400 }',
            b'{"a":"\\u0000"}',
            b'{"a":1,\n"a":2}',
            b"\xef\xbb\xbf{}",
            b"null",
            b"",
            b"\x00",
        ]
    ),
)
moments = st.integers(-(2**62), 2**62)
