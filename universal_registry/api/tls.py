"""TLS on the TCP listener: the certificate, reloaded when its files change, without touching open connections."""

from __future__ import annotations

import ssl
from pathlib import Path

from universal_registry.kernel.errors import SettingError
from universal_registry.kernel.settings import Settings
from universal_registry.observe.logs import Log

_Stamp = tuple[tuple[int, int, int], ...]


class Tls:
    """`context`: what the listener speaks through, for its whole life; `refresh` gives it the newest certificate.

    `client_ca`: certificates of those who may sign client certificates, one of which every client then needs. Raises
    SettingError for files that cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen = self._stamps()
        self.context = self._loaded()
        self.names = self._names()
        """The host names that the certificate is for."""
        self._log = Log("api")
        self._trouble = ""

    def keep_fresh(self, *, force: bool = False) -> None:
        """`refresh`, and tell of it in the log: of a certificate that does not fit once, while the old one stays."""
        try:
            if self.refresh(force=force):
                self._log.info("the certificate was read again", names=sorted(self.names))
            self._trouble = ""
        except SettingError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("the new certificate cannot be used: the old one stays", error)

    def refresh(self, *, force: bool = False) -> bool:
        """Load the files again if they have changed (or `force`); whether that was so. Those who connect from now on
        see them. Raises SettingError, with the old ones still in force, for files that do not fit together."""
        seen = self._stamps()
        if seen == self._seen and not force:
            return False
        self._seen = seen
        self._loaded()  # tried on the side, so that a half-written pair changes nothing
        self.context.load_cert_chain(self._certificate, self._key, password="")
        if self._client_ca is not None:
            self.context.load_verify_locations(self._client_ca)
        self.names = self._names()
        return True

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._certificate, self._key, password="")
            if self._client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._client_ca)
        except (OSError, ValueError) as error:  # ssl.SSLError is one
            raise SettingError(
                f"the certificate {self._certificate} with the key {self._key} cannot be used: {_reason(error)}",
                hint="PEM files: the certificate first, then those between it and its authority; the key unencrypted",
                setting="tls_cert",
            ) from None
        return context

    def _names(self) -> frozenset[str]:
        from cryptography import x509

        certificate = x509.load_pem_x509_certificates(self._certificate.read_bytes())[0]
        try:
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        names = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
        addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
        return frozenset((*names, *(f"[{each}]" if ":" in each else each for each in addresses)))

    def _stamps(self) -> _Stamp:
        found = []
        for file in (self._certificate, self._key, self._client_ca):
            if file is None:
                continue
            try:
                stat = file.stat()
            except OSError as error:
                hint = "REGISTRY_TLS_CERT and REGISTRY_TLS_KEY name files"
                raise SettingError(f"{file} cannot be read: {error.strerror}", hint=hint, setting="tls_cert") from None
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


def tls_from(settings: Settings) -> Tls | None:
    """What the settings ask for; None: cleartext. Raises SettingError."""
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is not None and key is not None:
        return Tls(certificate, key, settings.tls_client_ca)
    if certificate is None and key is None and settings.tls_client_ca is None:
        return None
    missing = "tls_cert" if certificate is None else "tls_key"
    raise SettingError(f"{missing} is not set", hint=f"set REGISTRY_{missing.upper()} too", setting=missing)
