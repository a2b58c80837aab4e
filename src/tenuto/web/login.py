"""Who may use the page: one user with a password, a session in a cookie, and patience against guessing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field

PASSWORD = "TENUTO_WEB_PASSWORD"
"""The environment variable that may hold the password; not handed on to runs."""
COOKIE = "tenuto_session"
LASTS = 12 * 3600
"""Seconds until a session ends."""
TRIES, PER = 5, 60.0
"""Wrong passwords that are heard within so many seconds."""


@dataclass
class Login:
    """The password is kept as a salted hash; sessions live as long as the server."""

    user: str
    _salt: bytes
    _hash: bytes = field(repr=False)
    _sessions: dict[str, float] = field(default_factory=dict, repr=False)
    _failures: list[float] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, user: str, password: str) -> Login:
        salt = secrets.token_bytes(16)
        return cls(user, salt, _hashed(password, salt))

    def tired(self) -> bool:
        """Too many wrong passwords lately."""
        self._failures = [at for at in self._failures if time.monotonic() - at < PER]
        return len(self._failures) >= TRIES

    def enter(self, user: str, password: str) -> str | None:
        """A new session's token. Both halves are compared in constant time."""
        right = hmac.compare_digest(user.encode(), self.user.encode())
        right &= hmac.compare_digest(_hashed(password, self._salt), self._hash)
        if not right:
            self._failures.append(time.monotonic())
            return None
        token = secrets.token_urlsafe(32)
        self._sessions = {own: end for own, end in self._sessions.items() if end > time.monotonic()}
        self._sessions[_shadow(token)] = time.monotonic() + LASTS
        return token

    def knows(self, token: str) -> bool:
        return self._sessions.get(_shadow(token), 0.0) > time.monotonic()

    def leave(self, token: str) -> None:
        self._sessions.pop(_shadow(token), None)


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def _shadow(token: str) -> str:
    """Sessions are looked up by a hash of the token, so the time that it takes tells nothing of it."""
    return hashlib.sha256(token.encode()).hexdigest()
