"""Pictures and archives behind an address: `s3://`, `gs://`, `https://` and whatever else fsspec opens.

Comes in: URLs. Goes out: bytes of bounded size, or a `RefusedFile`, after what may pass was tried again. Needs the
extra [cloud]. Credentials and endpoints are those that fsspec and the stores' own libraries find in the environment;
none is read, kept or shown here.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

from dermalert.errors import DataError, MissingExtra, NotAPicture, RefusedFile, TooLarge, Unreadable, printable
from dermalert.intake.decode import DEFAULT_LIMITS, Limits
from dermalert.intake.patience import PATIENCE, Patience, http_status, may_pass
from dermalert.intake.ranged import Ranged

OURS = ("s3", "s3a", "gs", "gcs", "http", "https")  # what [cloud] brings; others need a package of their own
_WEB = ("http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)")  # scheme and host or bucket; what is odd may follow
_PIECE = 4 * 2**20  # bytes of an archive asked for at a time
_WHOLE = 256 * 2**20  # bytes of an archive that a web server gives only as a whole
_NETWORK = frozenset({"aiohttp", "aiobotocore", "botocore", "gcsfs", "urllib3"})  # packages of passing errors

for _package in ("fsspec", "gcsfs", "s3fs"):
    # What they log of each failed attempt is told by us, once; whoever has set up logging still gets it.
    logging.getLogger(_package).addHandler(logging.NullHandler())


def is_url(text: str) -> bool:
    """Whether it begins with a scheme, such as `s3://`."""
    return _URL.match(text) is not None


def is_web(url: str) -> bool:
    """Whether it is an address that lists nothing and in which `?` begins a query."""
    return url.partition(":")[0].lower() in _WEB


def named(url: str) -> str:
    """The part of the URL whose ending says what it is: on the web, without the query."""
    return re.split(r"[?#]", url, maxsplit=1)[0] if is_web(url) else url


def shown(url: str) -> str:
    """The URL without a user's name and password, if it has them."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url, count=1)


def check(url: str) -> None:
    """Sees to it that what the URL needs is installed; asks nothing of the network.

    Raises:
        MissingExtra: the extra [cloud] is not installed.
        DataError: no such scheme, or it needs another package.
    """
    _place(url)


def read_url(url: str, limits: Limits = DEFAULT_LIMITS, *, patience: Patience = PATIENCE) -> bytes:
    """The content of one object, of at most `limits.max_bytes`.

    Raises:
        RefusedFile: it is larger, or cannot be read.
    """
    files, path = _place(url)
    end = limits.max_bytes + 1

    def read() -> bytes:
        if is_web(url):
            return _web(files, path, 0, end, patience.timeout_s)[0]
        return _cat(files, path, 0, end, patience.timeout_s)

    data: bytes = _patiently(read, url, patience)
    if len(data) > limits.max_bytes:
        reason = f"it has more than the {limits.max_bytes:,} bytes that are allowed"
        raise TooLarge(shown(url), reason, "Save it as JPEG, or at a lower resolution.")
    return data


def open_url(url: str, *, patience: Patience = PATIENCE) -> tuple[io.BufferedReader, int]:
    """An archive and its size in bytes; its pieces are fetched as they are read.

    Raises:
        RefusedFile: it cannot be read, now or later on; or a web server gives it only as a whole and it is large.
    """
    files, path = _place(url)
    if is_web(url):
        _, size, in_parts = _patiently(lambda: _web(files, path, 0, 1, patience.timeout_s), url, patience)
        if not in_parts:
            return _whole(url, files, path, patience)
    else:
        size = _patiently(lambda: _call(files, "info", path, timeout=patience.timeout_s), url, patience)["size"]

    def fetch(start: int, end: int) -> bytes:
        if is_web(url):
            return _web(files, path, start, end, patience.timeout_s)[0]
        return _cat(files, path, start, end, patience.timeout_s)

    if not size:
        raise NotAPicture(shown(url), "it is empty", "Copy it again.")
    ranged = Ranged(lambda start, end: _patiently(lambda: fetch(start, end), url, patience), size)
    return io.BufferedReader(ranged, _PIECE), size


def is_folder(url: str, *, patience: Patience = PATIENCE) -> bool:
    """Whether objects lie below the URL, rather than one at it.

    Raises:
        RefusedFile: neither, or the store does not say.
    """
    files, path = _place(url)
    found = _patiently(lambda: _call(files, "info", path, timeout=patience.timeout_s), url, patience)
    return bool(found["type"] == "directory")


def listed(url: str, *, patience: Patience = PATIENCE) -> tuple[list[str], list[str]]:
    """The sorted names of the objects and of the folders right below a folder.

    Raises:
        RefusedFile: it cannot be listed, or nothing is there.
    """
    files, path = _place(url)
    # Only names are kept: what a store tells of an object takes some 1.5 kB.
    names: tuple[list[str], list[str]] = [], []
    for name, is_folder in (_s3_entries if hasattr(files, "call_s3") else _entries)(files, path, url, patience):
        if name:  # stores list a folder's own mark in it
            names[is_folder].append(name)
    if not any(names):
        raise _refusal(url, FileNotFoundError(), patience)
    return sorted(names[False]), sorted(names[True])


def _entries(files: Any, path: str, url: str, patience: Patience) -> Iterator[tuple[str, bool]]:
    listing = _patiently(lambda: _call(files, "ls", path, detail=True, timeout=10 * patience.timeout_s), url, patience)
    for entry in listing:
        name = entry["name"].rstrip("/")
        yield "" if name.strip("/") == path.strip("/") else name.rpartition("/")[2], entry["type"] == "directory"


def _s3_entries(files: Any, path: str, url: str, patience: Patience) -> Iterator[tuple[str, bool]]:
    """Page by page, which `ls` of s3fs holds all at once: 1.5 GB for a million objects."""
    bucket, key, _ = files.split_path(path)
    asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/", **files.req_kw}
    while True:
        ask = partial(_call, files, "call_s3", "list_objects_v2", timeout=patience.timeout_s, **asked)
        page = _patiently(ask, url, patience)
        yield from ((entry["Key"].rpartition("/")[2], False) for entry in page.get("Contents", []))
        yield from ((entry["Prefix"][:-1].rpartition("/")[2], True) for entry in page.get("CommonPrefixes", []))
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


# Between fsspec and us


def _place(url: str) -> tuple[Any, str]:
    """The file system that the URL belongs to, and its path there."""
    scheme, host = _URL.match(url).groups()  # type: ignore[union-attr]
    files = _file_system(scheme.lower(), f"{scheme.lower()}://{host}/")
    return files, files._strip_protocol(scheme.lower() + url[len(scheme) :])


@lru_cache(maxsize=64)
def _file_system(scheme: str, start: str) -> Any:
    """One for each bucket or host, for all threads; with no memory of listings, which would grow."""
    try:
        import fsspec
        from fsspec.config import conf
    except ImportError as error:
        raise MissingExtra(f"Reading {scheme}://", "cloud") from error
    try:
        made = fsspec.get_filesystem_class(scheme)
        # Proxies as the environment names them; whatever the user has configured for fsspec comes first.
        usual = {"client_kwargs": {"trust_env": True}} if scheme in _WEB else {}
        options = usual | made._get_kwargs_from_urls(start) | conf.get(scheme, {})
        return made(**options, use_listings_cache=False)
    except ImportError as error:
        if scheme in OURS:
            raise MissingExtra(f"Reading {scheme}://", "cloud") from error
        raise DataError(f"{scheme}:// cannot be read: {error}.") from error
    except Exception as error:  # each file system of fsspec refuses in its own way
        raise DataError(f"{printable(shown(start))}: cannot be opened ({_one_line(error)}).") from error


def _patiently(work: Callable[[], Any], url: str, patience: Patience) -> Any:
    try:
        return patience(work, passes=_may_pass)
    except RefusedFile:
        raise
    except Exception as error:  # aiohttp, botocore, gcsfs and others have their own trees
        raise _refusal(url, error, patience) from error


def _may_pass(error: Exception) -> bool:
    if may_pass(error):
        return True
    decided = isinstance(error, OSError | ValueError) or http_status(error) is not None or _is_denial(error)
    return not decided and type(error).__module__.partition(".")[0] in _NETWORK


def _is_denial(error: Exception) -> bool:
    return (
        isinstance(error, PermissionError)
        or http_status(error) in (401, 403)
        or "Credential" in type(error).__name__
        or str(error).startswith("Forbidden")  # gcsfs, without a number
    )


def _refusal(url: str, error: Exception, patience: Patience) -> Unreadable:
    status = http_status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return Unreadable(shown(url), "it can't be read: there is nothing at this address", "Check the address.")
    if _is_denial(error):
        mend = "Give yourself the right to read it, or set the store's credentials in the environment."
        return Unreadable(shown(url), "it can't be read: the store denies access", mend)
    if isinstance(error, TimeoutError):
        reason = f"it can't be read: no whole answer in {patience.timeout_s:g} s"
    elif status is not None:
        reason = f"it can't be read: the server answers {status}"
    else:
        reason = f"it can't be read: {_one_line(error)}"
    return Unreadable(shown(url), reason, "Check the address and the network, then try again.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _call(files: Any, method: str, *arguments: Any, timeout: float | None, **options: Any) -> Any:
    """A method of a file system, within seconds where it lets itself be interrupted."""
    if not files.async_impl:
        return getattr(files, method)(*arguments, **options)
    from fsspec.asyn import sync

    return sync(files.loop, getattr(files, f"_{method}"), *arguments, timeout=timeout, **options)


def _cat(files: Any, path: str, start: int, end: int, timeout_s: float) -> bytes:
    try:
        return bytes(_call(files, "cat_file", path, start=start, end=end, timeout=timeout_s))
    except Exception as error:
        if "not satisfiable" in str(error):  # an empty object has no first byte
            return b""
        raise


# The web: fsspec reads what the server sends to its end, however long; this reads as much as was asked for.


def _web(files: Any, url: str, start: int, end: int, timeout_s: float) -> tuple[bytes, int, bool]:
    """Bytes from `start` to `end`; the size of all, 0 where it is not told; whether the server gives parts."""
    from fsspec.asyn import sync

    found: tuple[bytes, int, bool] = sync(files.loop, _web_part, files, url, start, end, timeout=timeout_s)
    return found


async def _web_part(files: Any, url: str, start: int, end: int) -> tuple[bytes, int, bool]:
    session = await files.set_session()
    asked = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    options = files.kwargs | {"headers": files.kwargs.get("headers", {}) | asked}
    async with session.get(files.encode_url(url), **options) as response:
        if response.status == 416:  # an empty file has no first byte
            return b"", 0, True
        response.raise_for_status()
        in_parts = response.status == 206
        if not in_parts and start:
            raise ValueError("the web server gives parts of it no longer")
        data = await _at_most(response.content, end - start)
        told = response.headers.get("Content-Range", "").rpartition("/")[2] if in_parts else ""
        return data, int(told) if told.isdecimal() else 0, in_parts and told.isdecimal()


async def _at_most(content: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := await content.read(min(2**20, size - len(data)))):
        data += piece
    return bytes(data)


def _whole(url: str, files: Any, path: str, patience: Patience) -> tuple[io.BufferedReader, int]:
    data, *_ = _patiently(lambda: _web(files, path, 0, _WHOLE + 1, patience.timeout_s), url, patience)
    if len(data) > _WHOLE:
        reason = f"the web server gives it only as a whole, and it has more than {_WHOLE:,} bytes"
        raise TooLarge(shown(url), reason, "Download it and give the file.")
    if not data:
        raise NotAPicture(shown(url), "it is empty", "Copy it again.")
    return io.BufferedReader(io.BytesIO(data)), len(data)
