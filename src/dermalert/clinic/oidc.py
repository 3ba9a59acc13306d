"""Signing in by OpenID Connect, by Authlib: the authorization code flow with PKCE, state and nonce.

Comes in: the browser's requests before and after it was at the provider. Goes out: the claims of an id_token whose
signature, issuer, audience, times and nonce are checked. It knows no account; `accounts` finds or refuses one.

State, nonce and PKCE's verifier travel in a signed cookie of ten minutes that only these two routes set and read, and
that this process alone can sign: who is at the provider while the service restarts begins again.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx
from authlib.common.errors import AuthlibBaseError
from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from joserfc.errors import JoseError

from dermalert.clinic.problems import Problem
from dermalert.clinic.settings import Settings
from dermalert.errors import SignInRefused

_SECONDS = 600
_signer = URLSafeTimedSerializer(secrets.token_bytes(32), salt="oidc")


async def to_provider(request: Request, settings: Settings, next_: str) -> Response:
    """Sends the browser to the provider.

    Args:
        next_: where it goes in the end, on our side.

    Raises:
        Problem: 404 where sign-in by OpenID Connect is not set up; 502 where the provider does not answer.
    """
    request.scope["session"] = kept = {"next": next_}
    try:
        response: Response = await _client(settings).authorize_redirect(request, _back(settings))
    except (httpx.HTTPError, AuthlibBaseError, ValueError):
        raise Problem(502, "The sign-in service does not answer. Sign in by password, or try again.") from None
    response.set_cookie(
        _cookie(settings),
        _signer.dumps(kept),
        max_age=_SECONDS,
        path="/",
        secure=settings.https,
        httponly=True,
        samesite="lax",
    )
    return response


async def from_provider(request: Request, settings: Settings) -> tuple[Mapping[str, Any], str]:
    """Checks what the browser brings back from the provider.

    Returns:
        the id_token's claims, and where the browser goes next.

    Raises:
        SignInRefused: what it brings does not hold, or the person declined.
        Problem: 404, as `to_provider`.
    """
    client = _client(settings)
    try:
        kept: dict[str, Any] = _signer.loads(request.cookies.get(_cookie(settings), ""), max_age=_SECONDS)
        request.scope["session"] = kept
        token = await client.authorize_access_token(request, claims_options=_claims(settings))
        claims: Mapping[str, Any] = token["userinfo"]
    except (BadSignature, AuthlibBaseError, JoseError, httpx.HTTPError, KeyError, ValueError):
        raise SignInRefused("The sign-in was not completed, or took over ten minutes. Begin again.") from None
    return claims, str(kept.get("next", "/"))


def _client(settings: Settings) -> Any:
    if not settings.oidc_issuer:
        raise Problem(404, "Sign-in by OpenID Connect is not set up here. Sign in by name and password.")
    return _registered(settings.oidc_issuer, settings.oidc_client, settings.oidc_secret)


@lru_cache(maxsize=2)
def _registered(issuer: str, client: str, secret: str) -> Any:
    with warnings.catch_warnings():  # it warns of httpx, which it can use, being old
        warnings.simplefilter("ignore")
        from authlib.integrations.starlette_client import OAuth

    oauth = OAuth()
    oauth.register(
        "provider",
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_id=client,
        client_secret=secret,
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": 10},
    )
    return oauth.provider


def _claims(settings: Settings) -> dict[str, Any]:
    return {
        "iss": {"essential": True, "value": settings.oidc_issuer},
        "aud": {"essential": True, "value": settings.oidc_client},
        "sub": {"essential": True},
        "nonce": {"essential": True},
    }


def _back(settings: Settings) -> str:
    return f"{settings.link_base}/login/oidc/back"


def _cookie(settings: Settings) -> str:
    return "__Host-dermalert-oidc" if settings.https else "dermalert-oidc"
