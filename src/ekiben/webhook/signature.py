"""Who sent it: W&B's signature over the body as it came, and the access token. Compared in constant time."""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ekiben.errors import UnavailableError, UsageError

Secrets = Callable[[], tuple[bytes, ...]]
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")


def signed(body: bytes, signature: str, secrets: Iterable[bytes]) -> bool:
    """Whether `signature` is the HMAC-SHA256 of `body` by one of the secrets, in base64 or in hexadecimal digits."""
    given = _digest(signature)
    if given is None:
        return False
    # All of them, always: how long it takes says nothing of which one it was.
    return any([hmac.compare_digest(hmac.digest(secret, body, hashlib.sha256), given) for secret in secrets])


def bears(authorization: str, tokens: Iterable[bytes]) -> bool:
    """Whether an Authorization header bears one of the tokens."""
    scheme, _, given = authorization.partition(" ")
    sent = given.strip().encode("latin-1", "replace")
    return any([hmac.compare_digest(token, sent) for token in tokens]) and scheme.lower() == "bearer"


def _digest(signature: str) -> bytes | None:
    if _HEX.fullmatch(signature):
        return bytes.fromhex(signature)
    if _BASE64.fullmatch(signature):
        try:
            return base64.b64decode(signature, validate=True)
        except binascii.Error:
            return None
    return None


def kept(variable: str, file: Path | None) -> Secrets:
    """Secrets, one a line, so that an old one can be valid beside a new one: of `file`, which is read again whenever
    it is asked for, or else of the environment, from which it is taken out. Empty where neither has any."""
    if file is None:
        held = _lines(os.environ.pop(variable, "").encode())
        return lambda: held

    def read() -> tuple[bytes, ...]:
        try:
            found = _lines(file.read_bytes())
        except OSError as error:
            raise UnavailableError(f"cannot read {file}: {error.strerror}", wanted="secrets, one a line") from None
        if not found:
            raise UnavailableError(f"{file} is empty", wanted="secrets, one a line")
        return found

    try:
        read()
    except UnavailableError as error:
        raise UsageError(error.seen, wanted=error.wanted) from None
    return read


def _lines(text: bytes) -> tuple[bytes, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
