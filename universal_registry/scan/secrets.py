"""What looks like a secret.

Wrong alarms only seal a value too many; a miss stores it in clear, so the rules lean wide.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_NAME = re.compile(
    r"(?:^|[_.-])(?:[A-Z0-9]*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|APIKEY)S?"
    r"|PASS|PWD|PAT|PIN|AUTH|KEY|KEYS|COOKIE|SIGNATURE|DSN|SALT|JWT|BEARER|OTP|WEBHOOK)(?:$|[_.-])"
)
_KNOWN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{16,}|(?:sk|rk|pk)_(?:live|test)_\w{12,}|whsec_[\w+/=]{16,}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|AIza[\w-]{30,}|ya29\.[\w.-]{20,}|hf_[A-Za-z0-9]{20,}|ur_[\w-]{40,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|\b[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"
    r"|\b[Bb]earer +[\w.~+/-]{12,}"
)
_OPAQUE = re.compile(r"[A-Za-z0-9+/_=.-]{24,512}")
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
_SCP_PASSWORD = re.compile(r"([^/:@\s]+):[^/@\s]+@")
_MIN_ENTROPY = 3.7


def secret_name(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret (`DB_PASSWORD`, `githubToken`, `X_API_KEY`)."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()
    return words not in ("PWD", "OLDPWD") and _NAME.search(words) is not None


def holds_secret(text: str) -> bool:
    """Whether a secret of a well-known form is in the text: a private key, a vendor's token, a password in a URL."""
    return _KNOWN.search(text) is not None


def secret_value(value: str) -> bool:
    """Whether the whole value is likely to be a secret: a known form, or one long opaque word."""
    return holds_secret(value) or _opaque(value)


def _opaque(value: str) -> bool:
    if not _OPAQUE.fullmatch(value) or value.startswith(("/", "./", "../")):
        return False
    if value.count("/") > 2 or value.count(".") > 2 or value.count("-") > 4:
        return False  # a path, a version or a slug
    classes = sum(1 for pattern in ("[a-z]", "[A-Z]", "[0-9]") if re.search(pattern, value))
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return classes >= 2 and bool(re.search("[0-9]", value)) and entropy >= _MIN_ENTROPY - 0.3 * (classes == 2)


def without_credentials(url: str) -> str:
    """A repository address without user information that may be secret, without query and fragment.

    `https://user:token@host/x?private_token=1` gives `https://host/x`; `ssh://git:pw@host/x` keeps only the user.
    """
    match = _URL.fullmatch(url)
    if not match:
        return _SCP_PASSWORD.sub(r"\1@", url, count=1) if _SCP_PASSWORD.match(url) else url
    scheme, authority, rest = match.groups()
    if "@" in rest and "@" not in authority and ":" in authority and "[" not in authority:
        # Either a password with a slash in it or a port before a path with an @: a mangled address is the lesser harm.
        authority, rest = _password_with_slash(authority + rest)
    user, at, host = authority.rpartition("@")
    keeps_user = scheme.lower() in ("ssh", "git+ssh", "ssh+git") and at
    kept = f"{user.partition(':')[0]}@" if keeps_user else ""
    return f"{scheme}://{kept}{host}{re.split('[?#]', rest, maxsplit=1)[0]}"


def _password_with_slash(text: str) -> tuple[str, str]:
    credentials, _, after = text.rpartition("@")
    host, slash, path = after.partition("/")
    return f"{credentials}@{host}", slash + path
