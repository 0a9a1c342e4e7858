"""Addresses that carry their own permission: the client's uploads and downloads send no key with them."""

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import quote

VALID_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Urls:
    """Makes and checks signed addresses below `base`, the server's address as the client wrote it."""

    base: str
    secret: bytes

    def put(self, path: str) -> str:
        return self._signed("PUT", path)

    def get(self, path: str) -> str:
        return self._signed("GET", path)

    def allows(self, method: str, path: str, until: str, signature: str) -> bool:
        """Whether the address was made by this server for this method and has not expired. `path` is unquoted."""
        if not until.isdecimal() or len(until) > 12 or int(until) < time.time():
            return False
        return hmac.compare_digest(self._sign(method, path, until).encode(), signature.encode())

    def _signed(self, method: str, path: str) -> str:
        until = str(int(time.time()) + VALID_SECONDS)
        return f"{self.base}{quote(path)}?until={until}&signature={self._sign(method, path, until)}"

    def _sign(self, method: str, path: str, until: str) -> str:
        return hmac.new(self.secret, f"{method} {path} {until}".encode(), hashlib.sha256).hexdigest()
