"""The file of a backup: written and read piece by piece, sealed, and whole or refused.

    universal-registry-backup 1
    {"id": ..., "at": ..., "key": "<kid>:<Fernet token>", "fingerprint": ..., "point": {...}}
    <length, 4 bytes, big endian><piece> ...

`key` is the key of the pieces, sealed with the key of the registry: so a backup opens with the registry's keys, and
holds none of them. A piece is AES-256-GCM over zlib over MessagePack; its nonce is its number, and the hash of the line
above is authenticated with it: no piece can be changed, moved, left out or brought over from another file. The last one
says how many rows there are of each table, and their digests.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from universal_registry.kernel.errors import Corrupt, Invalid, KeyMismatch, NewerStore, NotFound
from universal_registry.kernel.world import World
from universal_registry.security.cipher import Box
from universal_registry.security.keyring import Keyring
from universal_registry.storage.copying import Batch, Point, Summary

_FORMAT = 1
_MAGIC = b"universal-registry-backup %d\n" % _FORMAT
_FIRST_LINE = re.compile(rb"universal-registry-backup ([0-9]{1,9})\n")
_MOST_FIRST = 64
_MOST_HEADER = 1 << 16
_MOST_PIECE = 1 << 28
_HINT = "give a file that `ureg backup` wrote"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself to everybody. `at`: RFC 3339, UTC. `program`: the version that wrote it.
    `fingerprint`: of the key of the registry that opens it; what is sealed inside may need others of `point.keys`."""

    id: str
    at: str
    program: str
    key: str
    fingerprint: str
    point: Point

    @property
    def keys(self) -> tuple[str, ...]:
        """The ids of all keys that are needed to open it and what is sealed in it: the one that opens it first."""
        first = self.fingerprint[:8]
        return (first, *(kid for kid in self.point.keys if kid != first))


class _Rows(msgspec.Struct, frozen=True, array_like=True, tag="rows"):
    batch: Batch


class _End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    tables: dict[str, Summary]


_decode_piece = msgspec.msgpack.Decoder(_Rows | _End).decode


class ArchiveWriter:
    """Writes one backup into an open file. `bytes`: how many, so far."""

    def __init__(self, file: BinaryIO, point: Point, ring: Keyring, world: World, *, program: str) -> None:
        identity, secret = world.new_id(), world.secret_bytes(32)
        self.header = Header(
            id=identity,
            at=world.now().isoformat(timespec="seconds").replace("+00:00", "Z"),
            program=program,
            key=Box(ring).seal(secret, _context(identity)),
            fingerprint=ring.fingerprint,
            point=point,
        )
        line = msgspec.json.encode(self.header) + b"\n"
        self.bytes = file.write(_MAGIC + line)
        self._file, self._cipher = file, _Cipher(secret, line)

    def add(self, batch: Batch) -> None:
        """Write rows."""
        self._write(_Rows(batch))

    def end(self, tables: Mapping[str, Summary]) -> None:
        """Write what there must be in all: without it a backup is none."""
        self._write(_End(dict(tables)))

    def _write(self, piece: _Rows | _End) -> None:
        sealed = self._cipher.seal(zlib.compress(msgspec.msgpack.encode(piece), 1))
        self.bytes += self._file.write(len(sealed).to_bytes(4) + sealed)


def read_header(path: Path) -> Header:
    """What a backup says of itself. Raises Invalid for a file that is none, and as opening does."""
    with opened(path) as file:
        return _header(file)[0]


def opened(path: Path) -> BinaryIO:
    """Raises NotFound for a file that is not there, Invalid for one that cannot be read."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no file {str(path)!r:.200}", hint=_HINT) from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {(error.strerror or str(error)).lower()}", hint=_HINT) from None


def _header(file: BinaryIO) -> tuple[Header, bytes]:
    found = _FIRST_LINE.fullmatch(file.readline(_MOST_FIRST))
    if found is None:
        raise Invalid(f"{file.name} is no backup of a registry", hint=_HINT)
    if int(found[1]) != _FORMAT:
        raise NewerStore(
            f"{file.name} is a backup of format {int(found[1])}; this program reads format {_FORMAT}",
            hint="use the version that wrote it",
        )
    line = file.readline(_MOST_HEADER)
    try:
        return msgspec.json.decode(line, type=Header), line
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Corrupt(f"{file.name} is damaged in its second line", hint="use another backup") from None


class ArchiveReader:
    """Reads one backup. Raises Corrupt as soon as anything in it is not as it was written."""

    def __init__(self, file: BinaryIO, ring: Keyring) -> None:
        self.header, line = _header(file)
        check_key(self.header, ring)
        self._file = file
        self._cipher = _Cipher(Box(ring).open(self.header.key, _context(self.header.id)), line)
        self.tables: dict[str, Summary] | None = None

    def batches(self) -> Iterator[Batch]:
        """All rows; afterwards `tables` says what there must be."""
        while self.tables is None:
            piece = self._piece()
            if isinstance(piece, _End):
                if self._file.read(1):
                    raise Corrupt(f"{self._file.name} goes on after its end", hint="use another backup")
                self.tables = piece.tables
                return
            yield piece.batch

    def _piece(self) -> _Rows | _End:
        length = int.from_bytes(self._file.read(4))
        sealed = self._file.read(length) if 0 < length <= _MOST_PIECE else b""
        if not sealed or len(sealed) != length:
            raise Corrupt(f"{self._file.name} is cut off", hint="use another backup")
        try:
            piece: _Rows | _End = _decode_piece(zlib.decompress(self._cipher.open(sealed)))
            return piece
        except (ValueError, zlib.error, msgspec.DecodeError):
            raise Corrupt(f"{self._file.name} is damaged", hint="use another backup") from None


def check_key(header: Header, ring: Keyring) -> None:
    """Raises KeyMismatch when the keys do not open a backup, or what is sealed in it."""
    if ring.named(header.fingerprint) is None:
        raise KeyMismatch(
            f"this backup was sealed with key {header.fingerprint}; here there is only {', '.join(sorted(ring.keys))}",
            hint="nothing was changed; give the keys that belong to it: --keys FILE (of `ureg key backup`)",
            expected=header.fingerprint,
        )


class _Cipher:
    """Seals pieces, or opens them, in order."""

    def __init__(self, secret: bytes, line: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead = AESGCM(secret)
        self._with = sha256(line).digest()
        self._number = 0

    def seal(self, plain: bytes) -> bytes:
        return self._aead.encrypt(self._nonce(), plain, self._with)

    def open(self, sealed: bytes) -> bytes:
        """Raises ValueError."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead.decrypt(self._nonce(), sealed, self._with)
        except InvalidTag:
            raise ValueError from None

    def _nonce(self) -> bytes:
        self._number += 1
        return self._number.to_bytes(12)


def _context(identity: str) -> str:
    return f"backup\n{identity}\nkey"
