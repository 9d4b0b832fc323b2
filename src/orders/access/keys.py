"""The format of API keys: `ord_`, an ID of 8 characters, `_`, a secret of 43 and a checksum of 6.

The checksum rejects typing errors, and lets scanners tell a key from other text. Neither needs the database.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
"""Characters of IDs, secrets and checksums (base62): a double click selects a whole key."""

PREFIX = "ord_"
"""Beginning of every key."""

ID = "[0-9A-Za-z]{8}"
"""Pattern of a key's ID, which is no secret: lists and logs name it."""

SECRET_LENGTH = 43
"""Length of a secret: 43 characters of 62 are 256 bits."""

CHECKSUM_LENGTH = 6
"""Length of a checksum: the CRC32 of what is before it, in base62."""

_KEY = re.compile(rf"{PREFIX}{ID}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}")
_ID = slice(len(PREFIX), len(PREFIX) + 8)

LENGTH = len(PREFIX) + 8 + 1 + SECRET_LENGTH + CHECKSUM_LENGTH
"""Length of a key."""


def make_key() -> str:
    """A new key, by the operating system's source of chance."""
    start = f"{PREFIX}{_draw(8)}_{_draw(SECRET_LENGTH)}"
    return start + checksum(start)


def is_key(text: str) -> bool:
    """Whether the text has a key's format, and the right checksum."""
    if len(text) != LENGTH or not _KEY.fullmatch(text):
        return False
    return checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:]


def checksum(start: str) -> str:
    """The checksum of a key that begins with `start`."""
    rest, digits = zlib.crc32(start.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def id_of(key: str) -> str:
    """The ID in a key. Of any other text it is some part."""
    return key[_ID]


def digest_of(key: str) -> bytes:
    """What is stored of a key. One SHA-256 is enough: a secret of 256 bits can't be guessed, however fast it is."""
    return hashlib.sha256(key.encode()).digest()


def has_digest(text: str, digest: bytes) -> bool:
    """Whether the text is the key with this digest. It takes as long for every wrong text."""
    return hmac.compare_digest(digest_of(text), digest)


def _draw(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
