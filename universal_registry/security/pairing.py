"""What two paired registries say to one another under: key pairs of their own, fresh keys for each connection.

Whoever opens a connection knows the other's public key and proves its own (both static, both ephemeral X25519 keys go
into the session's keys, as in Noise KK). What is said then is sealed with AES-256-GCM, each message under a number that
only rises: it can neither be read, changed, repeated nor sent by anybody else, whatever carries it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from universal_registry.kernel.errors import Invalid, VerifyError
from universal_registry.kernel.world import World

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_BYTES = 32
NUMBER_BYTES = 8
PURPOSE = "peer key"
_LINK, _JOIN = b"universal-registry link 1", b"universal-registry join 1"


class Asked(msgspec.Struct, frozen=True):
    """The first message of a connection: whose, to whom, its ephemeral key, and the proof of the static one."""

    node: str
    to: str
    key: str
    proof: str


class Answered(msgspec.Struct, frozen=True):
    """The second: the ephemeral key of the other side, its proof (which holds the id of the link), and that id."""

    key: str
    proof: str
    link: str


class Sealed(msgspec.Struct, frozen=True):
    """A message to somebody whose key is known, from somebody whose key is not: only that somebody can open it."""

    key: str
    box: str


class MachineKey:
    """The key pair of this registry. `seed`: 32 bytes, from which it is made the same each time."""

    def __init__(self, seed: bytes) -> None:
        self._private = _private(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def shared(self, public: bytes) -> bytes:
        """What it and the owner of that key alone can know. Raises VerifyError for a key that is none."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        try:
            shared: bytes = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise VerifyError("the other side's key is no key") from None
        return shared


def fingerprint(public: bytes) -> str:
    """The public key in short, for people to compare."""
    digits = hashlib.sha256(public).hexdigest()[:16]
    return "-".join(digits[at : at + 4] for at in range(0, 16, 4))


# --- a connection ---------------------------------------------------------------------------------------------------


class Keys(NamedTuple):
    """The four keys of a connection: of what is sent by the side that opened it and of the answers to that, and of what
    it asks for and of the answers to that."""

    sent: bytes
    sent_answer: bytes
    polled: bytes
    polled_answer: bytes


class Opening:
    """A connection that this side opens. `ask` goes out; `finish` takes what comes back."""

    def __init__(self, machine: MachineKey, node: str, peer: str, public: bytes, world: World) -> None:
        self._machine = machine
        self._public = public
        self._fresh = MachineKey(world.secret_bytes(KEY_BYTES))
        self._secret = self._fresh.shared(public) + machine.shared(public)
        self._said = _transcript(node, peer, machine.public, public, self._fresh.public)
        proof = _aead(_derived(self._secret, self._said, 1)[0]).encrypt(_nonce(0), b"", self._said)
        self.ask = Asked(node, peer, text_of(self._fresh.public), text_of(proof))
        self._said = _hashed(self._said, proof)

    def finish(self, answered: Answered) -> Keys:
        """The keys. Raises VerifyError when it is not the peer that answers."""
        theirs = key_of(answered.key)
        secret = self._secret + self._fresh.shared(theirs) + self._machine.shared(theirs)
        said = _hashed(self._said, theirs)
        proof, *keys = _derived(secret, said, 5)
        if _opened(proof, 0, bytes_of(answered.proof), said) != answered.link.encode():
            raise VerifyError("the answer names another link than its proof")
        return Keys(*keys)


def answer_opening(machine: MachineKey, asked: Asked, public: bytes, link: str, world: World) -> tuple[Answered, Keys]:
    """What to say to a peer, whose key is `public`, that opens a connection. Raises VerifyError if it is another.

    Somebody may repeat a first message that he has overheard: what follows he cannot say.
    """
    theirs = key_of(asked.key)
    secret = machine.shared(theirs) + machine.shared(public)
    said = _transcript(asked.node, asked.to, public, machine.public, theirs)
    proof = bytes_of(asked.proof)
    _opened(_derived(secret, said, 1)[0], 0, proof, said)
    fresh = MachineKey(world.secret_bytes(KEY_BYTES))
    secret += fresh.shared(theirs) + fresh.shared(public)
    said = _hashed(_hashed(said, proof), fresh.public)
    first, *keys = _derived(secret, said, 5)
    box: bytes = _aead(first).encrypt(_nonce(0), link.encode(), said)
    return Answered(text_of(fresh.public), text_of(box), link), Keys(*keys)


def seal_numbered(key: bytes, number: int, data: bytes) -> bytes:
    """A message under its number. A number is used once under a key, or again for the very same message."""
    head = number.to_bytes(NUMBER_BYTES, "big")
    box: bytes = _aead(key).encrypt(_nonce(number), data, head)
    return head + box


def open_numbered(key: bytes, message: bytes) -> tuple[int, bytes]:
    """The number and the message. Raises VerifyError."""
    head, box = message[:NUMBER_BYTES], message[NUMBER_BYTES:]
    if len(head) < NUMBER_BYTES:
        raise VerifyError("the message is cut off")
    number = int.from_bytes(head, "big")
    return number, _opened(key, number, box, head)


# --- joining --------------------------------------------------------------------------------------------------------


class Closed:
    """A question to whoever holds a private key, and the key of the answer."""

    def __init__(self, public: bytes, data: bytes, world: World) -> None:
        fresh = MachineKey(world.secret_bytes(KEY_BYTES))
        ask, self._answer = _derived(fresh.shared(public), _hashed(_JOIN, public + fresh.public), 2)
        self.message = Sealed(text_of(fresh.public), text_of(_aead(ask).encrypt(_nonce(0), data, _JOIN)))

    def open(self, box: str) -> bytes:
        """The answer. Raises VerifyError when it is not of the one who was asked."""
        return _opened(self._answer, 0, bytes_of(box), _JOIN)


def open_closed(machine: MachineKey, sealed: Sealed) -> tuple[bytes, bytes]:
    """The question, and the key to seal its answer with. Raises VerifyError."""
    theirs = key_of(sealed.key)
    ask, answer = _derived(machine.shared(theirs), _hashed(_JOIN, machine.public + theirs), 2)
    return _opened(ask, 0, bytes_of(sealed.box), _JOIN), answer


def seal_answer(key: bytes, data: bytes) -> str:
    """The answer to a question that was closed."""
    return text_of(_aead(key).encrypt(_nonce(0), data, _JOIN))


# --- invitations ----------------------------------------------------------------------------------------------------

LINE_PREFIX = "ureg-peer:"
SECRET_BYTES = 16


class Invitation(NamedTuple):
    """One line for the other side: where to go, whom to expect there, and the secret that opens it once. `expires`:
    seconds since 1970."""

    url: str
    node: str
    cluster: str
    key: bytes
    secret: str
    expires: int

    @property
    def line(self) -> str:
        """In letters that no shell means anything by."""
        parts = (self.node, self.cluster, text_of(self.key), self.secret, str(self.expires))
        return f"{LINE_PREFIX}{self.url.rstrip('/')}/{'.'.join(parts)}"


def new_secret(world: World) -> str:
    """The secret of an invitation."""
    return text_of(world.secret_bytes(SECRET_BYTES))


def secret_hash(secret: str) -> str:
    """What is stored of it."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def parse_invitation(line: str) -> Invitation:
    """Read what `Invitation.line` wrote. Raises Invalid, which never shows the line: it holds a secret."""
    hint = "paste the whole line that `ureg peer invite` printed there"
    url, slash, rest = line.strip().removeprefix(LINE_PREFIX).rpartition("/")
    parts = rest.split(".")
    if not line.strip().startswith(LINE_PREFIX) or not slash or len(parts) != 5:
        raise Invalid("this is no invitation", hint=hint)
    node, cluster, key, secret, expires = parts
    if not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        raise Invalid("the invitation's time cannot be read", hint=hint)
    try:
        return Invitation(url, node, cluster, key_of(key), secret, int(expires))
    except VerifyError:
        raise Invalid("the invitation's key cannot be read", hint=hint) from None


# --- bytes ----------------------------------------------------------------------------------------------------------


def text_of(data: bytes) -> str:
    """Bytes as url-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bytes_of(text: str) -> bytes:
    """The bytes of such a text. Raises VerifyError."""
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise VerifyError("a key or proof is not url-safe base64") from None


def key_of(text: str) -> bytes:
    """The 32 bytes of a public key. Raises VerifyError."""
    key = bytes_of(text)
    if len(key) != KEY_BYTES:
        raise VerifyError(f"a public key has {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _private(seed: bytes) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # lazily: few commands need it

    return X25519PrivateKey.from_private_bytes(seed)


def _aead(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _opened(key: bytes, number: int, box: bytes, said: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        data: bytes = _aead(key).decrypt(_nonce(number), box, said)
    except (InvalidTag, ValueError):
        raise VerifyError("what was said does not open: it is of somebody else, or was changed") from None
    return data


def _nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(NUMBER_BYTES, "big")


def _transcript(node: str, peer: str, opener: bytes, other: bytes, fresh: bytes) -> bytes:
    return _hashed(_LINK, msgspec.json.encode((node, peer)) + opener + other + fresh)


def _hashed(before: bytes, data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(before).digest() + data).digest()


def _derived(secret: bytes, salt: bytes, count: int) -> list[bytes]:
    """HKDF (RFC 5869) with SHA-256: so many keys."""
    root = hmac.digest(salt, secret, "sha256")
    keys, last = [], b""
    for number in range(1, count + 1):
        last = hmac.digest(root, last + b"keys" + bytes((number,)), "sha256")
        keys.append(last)
    return keys
