"""Certificates that this machine trusts (`certificate`), named by common name and 8 digits of the fingerprint.

Each certificate counts once, however many files hold it. The bundle is only read when there are no single files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from universal_registry.scan.base import Found, Source, SourceReader, always

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name

_FOLDERS = ("/etc/ssl/certs", "/etc/pki/ca-trust/source/anchors", "/usr/local/share/ca-certificates")
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_FILE_BYTES = 4 << 20
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


_where = always(*(f"{folder}/*.{{pem,crt}}" for folder in _FOLDERS), *_BUNDLES)


def _find(source: Source) -> Iterator[Found]:
    singles = [
        f"{folder}/{name}"
        for folder in _FOLDERS
        for name in source.names(folder)
        if name.endswith((".pem", ".crt")) and f"{folder}/{name}" not in _BUNDLES
    ]
    seen: set[str] = set()
    for path in singles or _BUNDLES:
        text = source.text(path, _FILE_BYTES)
        if text is None:
            continue
        blocks = _PEM.findall(text)
        if not blocks:
            source.skip("no certificate in this file", path)
        for block in blocks:
            yield from _certificate(source, path, block, seen)


def _certificate(source: Source, path: str, block: str, seen: set[str]) -> Iterator[Found]:
    try:
        with warnings.catch_warnings():  # old roots break rules that the library warns about; they are still trusted
            warnings.simplefilter("ignore")
            spec, label, classification = _described(block)
    except ValueError:  # whatever is wrong with the ASN.1 inside
        source.skip("a certificate that cannot be parsed", path)
        return
    fingerprint = spec["fingerprint_sha256"]
    if fingerprint not in seen:
        seen.add(fingerprint)
        name = f"{label} {fingerprint[:8]}"
        yield from source.found("certificate", name, classification, {**spec, "path": path}, label)


def _described(block: str) -> tuple[dict[str, str], str, str]:
    """Spec, label and classification. Raises ValueError for what is not a certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = x509.load_pem_x509_certificate(block.encode())
    subject = certificate.subject.rfc4514_string()
    spec = {
        "subject": subject,
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.strftime(_TIME),
        "not_after": certificate.not_valid_after_utc.strftime(_TIME),
        "fingerprint_sha256": certificate.fingerprint(SHA256()).hex(),
    }
    label = _common_name(certificate.subject) or subject or "certificate"
    return spec, label, "CaCertificate" if _is_authority(certificate) else "TlsCertificate"


def _common_name(subject: Name) -> str:
    from cryptography.x509.oid import NameOID

    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in subject.get_attributes_for_oid(oid):
            return str(attribute.value).strip()
    return ""


def _is_authority(certificate: Certificate) -> bool:
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return certificate.subject == certificate.issuer  # old roots have no extensions


READER = SourceReader(
    "certificates", "certificate authorities that this machine trusts", ("certificate",), _where, _find
)
