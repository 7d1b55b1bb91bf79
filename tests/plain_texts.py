"""Texts that a record of the study may hold, for property tests."""

from hypothesis import strategies as st

from clca_utils.texts import plain


def plain_text(**size: int) -> st.SearchStrategy[str]:
    """Return texts that are not refused."""
    return st.text(st.characters(exclude_categories=["Cc", "Cs"]), **size).filter(_is_plain)


def _is_plain(text: str) -> bool:
    try:
        return plain(text) == text
    except ValueError:
        return False
