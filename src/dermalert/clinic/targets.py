"""Where webhooks may go: what an admin named, by https, and to no address that only this machine or its cloud knows.

Comes in: a URL. Goes out: the address to connect to, or why not. It sends nothing.

The name is looked up here, once, and the connection is made to the address that was looked at: a name that changes its
address in between (DNS rebinding) leads nowhere else. Addresses of a private network are allowed: that is where a
hospital's systems are. Loopback is for who names it as such.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from dermalert.clinic.settings import Settings
from dermalert.errors import DataError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Target:
    """A URL and the numeric address that its host has now."""

    url: SplitResult
    address: str

    @property
    def numeric_url(self) -> str:
        """The URL with the address in the host's place."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        port = f":{self.url.port}" if self.url.port else ""
        return self.url._replace(netloc=host + port).geturl()


def check_webhook(settings: Settings, url: str) -> SplitResult:
    """The parts of a URL that webhooks may be sent to.

    Raises:
        DataError: it is none, or webhooks are not set up.
    """
    if not settings.webhook_secret:
        raise DataError("Webhooks are not set up: start the service with DERMALERT_WEBHOOK_SECRET, a long random word.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise DataError("That is no URL. Give one, as https://hospital.example/dermalert.") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url or len(url) > 500:
        raise DataError("A webhook goes to a URL, as https://hospital.example/dermalert.")
    if parts.username or parts.password or parts.fragment:
        raise DataError("A webhook's URL has no password and no fragment: messages are signed instead.")
    plain = (*_LOOPBACK, *(each.strip().lower() for each in settings.plain_hosts.split(",")))
    if parts.scheme == "http" and host.lower() not in plain:
        raise DataError(
            f"Webhooks go by https. To reach {host:.100} by http all the same, start the service with "
            f"DERMALERT_PLAIN_HOSTS={host:.100}."
        )
    return parts


def resolved(settings: Settings, url: str) -> Target:
    """The target that a URL leads to now.

    Raises:
        DataError: as `check_webhook`; the host is unknown, or has an address that webhooks may not reach.
    """
    parts = check_webhook(settings, url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    except OSError:
        raise DataError(f"{host:.100} is unknown to this machine's name service.") from None
    addresses = [str(each[4][0]) for each in found]
    for address in addresses:
        if not _reachable(ip_address(address), host):
            raise DataError(f"{host:.100} has the address {address}, which webhooks may not reach.")
    return Target(parts, addresses[0])


def _reachable(address: IPv4Address | IPv6Address, host: str) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback:
        return host.lower() in _LOOPBACK
    return not (mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified or mapped.is_reserved)
