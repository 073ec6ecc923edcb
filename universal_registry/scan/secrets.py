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
# In a command line: what stands there outright. What the shell looks up only when it runs ($TOKEN, $(pass show x),
# standard input) is no secret of the text.
_LITERAL = r"""(?:'(?=[^'\s;&|)])|"?(?=[^\s"'$`<*;&|)]))"""
_PAIR = r"""["']?(?!\d+:\d+)[^\s:/"'$`]+:(?!//)[^\s"'$`:]"""
_ASSIGNED = re.compile(rf"(?<![\w$-])([A-Za-z_][A-Za-z0-9_]{{0,100}})(?:\+?=|:[=-])(?!=){_LITERAL}")
_HEADER = re.compile(rf"(?:\s-H|--header)[\s=]?\s*[\"']?([\w-]{{1,100}}):[ \t]*{_LITERAL}")
_POINTS_ELSEWHERE = re.compile(r"_(?:FILE|PATH|DIR|CMD|COMMAND|STDIN|ENV|NAME|ID|TYPE|LENGTH)\Z", re.IGNORECASE)
_IN_COMMAND = re.compile(
    r"(?i:\bauthorization|\bcookie):[ \t]*(?![\"']?(?:\w+[ \t]+)?[\"']?[$`])\S"
    rf"|(?:^|\s)(?:-[uU][ \t]*|--(?:proxy-)?user[ \t=]+|--auth[ \t=]+){_PAIR}"
    rf"|\b(?:curl|wget|https?|xh)\b[^\n;|&]{{0,400}}?\s-[A-Za-z]*[uUa][ \t]*{_PAIR}"
    r"|(?:^|\s)--?(?i:[a-z0-9]{1,30}[-_]){0,4}(?i:pass|pwd|passw(?:or)?d|passphrase|storepass|keypass|token|secret|apikey"
    rf"|(?:api|access|secret|auth)[-_]key)(?:[ \t]*=[ \t]*|[ \t]+(?!-)){_LITERAL}"
    rf"|\b(?:my(?:sql|cli)|maria(?:db)?|sshpass|7z)[\w-]*\b[^\n;|&]{{0,400}}?\s-p{_LITERAL}"
    r"|\b(?:sshpass|mongo\w*|(?:docker|podman) login|redis-cli|ldap\w+)\b"
    rf"[^\n;|&]{{0,400}}?\s-[paw][ \t]+(?!-){_LITERAL}"
    rf"|\s-pass(?:in|out)?[ \t]+pass:{_LITERAL}"
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


def command_holds_secret(text: str) -> bool:
    """Whether a secret stands in a command line or a piece of shell source: one of a well-known form, or where programs
    take one (`DB_TOKEN=x`, `-u me:x`, `mysql -px`, `--password x`, an Authorization header)."""
    if holds_secret(text) or _IN_COMMAND.search(text) is not None:
        return True
    named = (match[1].replace("-", "_") for pattern in (_ASSIGNED, _HEADER) for match in pattern.finditer(text))
    return any(secret_name(name) and not _POINTS_ELSEWHERE.search(name) for name in named)


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
