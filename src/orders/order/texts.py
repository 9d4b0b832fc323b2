"""Which characters a text may have, if people read it or if it has to be found again. Pure."""

import unicodedata

MAX_REFERENCE_LENGTH = 255

VISIBLE = (
    r"^[^\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff]*$"
)
"""Pattern of the texts that `as_reference` accepts, as far as every client's regular expressions can express it."""

PROSE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]*$"
"""Pattern of the texts that `as_prose` accepts, in the same way."""

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, format characters, surrogates, line and paragraph separators
_CONTROLS = ("Cc", "Cs")
_OF_PROSE = "\t\n\r"
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def as_reference(text: str) -> str:
    """The text in Unicode's normal form C, so that references that look alike are equal. Raises ValueError if it has an
    invisible character.
    """
    if text.isascii() and text.isprintable():
        return text
    normal = unicodedata.normalize("NFC", text)
    if len(normal) > MAX_REFERENCE_LENGTH:
        raise ValueError(f"must have at most {MAX_REFERENCE_LENGTH} characters in Unicode's normal form C")
    for character in normal:
        if unicodedata.category(character) in _INVISIBLE or _is_none(character):
            raise ValueError(f"must not hold the invisible character {_named(character)}")
    return normal


def as_prose(text: str) -> str:
    """The text as it is.

    Raises ValueError if it has a control character (except tabs and line ends), a character that reverses the direction
    of the text, or a code point that is no character.
    """
    if text.isprintable():
        return text
    for character in text:
        is_control = unicodedata.category(character) in _CONTROLS and character not in _OF_PROSE
        if is_control or character in _TURNING or _is_none(character):
            raise ValueError(f"must not hold the character {_named(character)}")
    return text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run this text as a formula: it begins with = + - or @, in any width, possibly after
    invisible characters.
    """
    if not text or (text[0].isascii() and text[0].isalnum()):
        return False
    for character in text:
        if not _is_blank(character):
            return unicodedata.normalize("NFKC", character)[0] in "=+-@"
    return False


def _is_blank(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ"


def _is_none(character: str) -> bool:
    """Whether the code point is one that Unicode never assigns."""
    point = ord(character)
    return point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF


def _named(character: str) -> str:
    return f"U+{ord(character):04X}"
