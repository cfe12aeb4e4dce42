"""What a file is that holds no text, by its first bytes."""

from __future__ import annotations

GZIP = "gzip"
BEGINNINGS = {
    b"\x1f\x8b": GZIP,
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh91AY&SY": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"PAR1\x15": "parquet",
    b"ARROW1\x00": "Arrow",
    b"SQLite format 3\x00": "SQLite",
}


def container_of(data: bytes) -> str | None:
    """The name of the format that a file of these bytes is in; None for text and what is not known here."""
    return next((name for beginning, name in BEGINNINGS.items() if data.startswith(beginning)), None)
