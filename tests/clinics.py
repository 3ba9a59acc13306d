"""A clinic in a temporary folder, and people who are signed in to it, for the tests of its routes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from dermalert.clinic import accounts
from dermalert.clinic.app import make_app
from dermalert.clinic.schema import Role
from dermalert.clinic.service import Service
from dermalert.clinic.settings import Settings

PASSWORD = "seven green boats at noon"
ADDRESS = "http://testserver"


@dataclass
class Clinic:
    """A running clinic without workers; its people are called as their roles."""

    app: FastAPI
    service: Service
    _clients: dict[str, TestClient] = field(default_factory=dict)

    def client(self, **options: Any) -> TestClient:
        """A browser that nobody has signed in with. Its redirects are not followed."""
        return TestClient(self.app, base_url=ADDRESS, follow_redirects=False, **options)

    def as_(self, role: Role | None) -> TestClient:
        """Of a reader or an admin, a browser with a session that sends the CSRF token; of an uploader, a token.

        Of nobody, a browser that has the form to sign in.
        """
        if role is None:
            client = self.client()
            client.get("/login")
            client.headers["X-CSRF-Token"] = client.cookies["dermalert-form"]
            return client
        if role not in self._clients:
            self._clients[role] = self._signed_in(role)
        return self._clients[role]

    def forget(self, role: Role) -> None:
        """Has `as_` sign in anew."""
        self._clients.pop(role, None)

    def token(self, role: Role) -> str:
        """An API token of that role's person."""
        user_id = self._user(role)
        with self.service.store.session() as session:
            return accounts.new_token(session, "test", user_id, "test")

    def _signed_in(self, role: Role) -> TestClient:
        client = self.client()
        if role == Role.UPLOADER:
            client.headers["Authorization"] = f"Bearer {self.token(role)}"
            return client
        self._user(role)
        cookie = accounts.sign_in(self.service.store, str(role), PASSWORD, hours=1)
        client.cookies.set("dermalert", cookie)
        visitor = accounts.visitor_by_session(self.service.store, cookie)
        assert visitor
        client.headers["X-CSRF-Token"] = visitor.csrf
        return client

    def _user(self, role: Role) -> str:
        with self.service.store.session() as session:
            for user in accounts.users(session):
                if user.name == role:
                    return user.id
            user_id = accounts.add_user(session, "test", str(role), role).id
            link = "" if role == Role.UPLOADER else accounts.new_link(session, "test", user_id)
        if link:
            accounts.set_password_by_link(self.service.store, link, PASSWORD)
        return user_id


@contextmanager
def clinic(folder: Path, **settings: Any) -> Iterator[Clinic]:
    """A clinic that is running; nothing scores its pictures."""
    app = make_app(Settings(**{"data": folder, "base_url": ADDRESS, "workers": 0, **settings}))
    with TestClient(app, base_url=ADDRESS):
        yield Clinic(app, app.state.service)


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG of noise, another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()
