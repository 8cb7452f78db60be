"""Credentials for registries, and the answers to their challenges (distribution-spec; Docker's token
specification).

Looked for in ``CONTAINUST_REGISTRY_TOKEN`` or ``_USER`` and ``_PASSWORD``, then in ``~/.docker/config.json``
(``DOCKER_CONFIG`` names another directory): a credential helper, else a stored login. Nothing of it is ever
logged.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOCKER_HUB = "docker.io"
DOCKER_HUB_KEY = "https://index.docker.io/v1/"


class Credentials:
    """A user with a password, or a token that is used as it is."""

    __slots__ = ("password", "token", "user")

    def __init__(self, user: str = "", password: str = "", token: str = "") -> None:
        self.user = user
        self.password = password
        self.token = token

    def __repr__(self) -> str:
        return "Credentials(hidden)"

    def basic(self) -> str:
        """The value of an Authorization header."""
        from base64 import b64encode

        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(registry: str) -> Credentials | None:
    """The credentials for ``registry`` (a host with its port), None when there are none. Raises I006."""
    environ = os.environ
    if environ.get("CONTAINUST_REGISTRY_TOKEN"):
        return Credentials(token=environ["CONTAINUST_REGISTRY_TOKEN"])
    if environ.get("CONTAINUST_REGISTRY_USER"):
        return Credentials(environ["CONTAINUST_REGISTRY_USER"], environ.get("CONTAINUST_REGISTRY_PASSWORD", ""))
    config = _docker_config()
    key = DOCKER_HUB_KEY if registry == DOCKER_HUB else registry
    helper = _object(config, "credHelpers").get(registry) or config.get("credsStore")
    if isinstance(helper, str) and helper:
        return _ask_helper(helper, key)
    logins = _object(config, "auths")
    for name in (key, registry, f"https://{registry}", f"https://{registry}/v2/"):
        login = logins.get(name)
        if isinstance(login, dict) and isinstance(login.get("auth"), str) and login["auth"]:
            from base64 import b64decode

            try:
                user, _, password = b64decode(login["auth"]).decode().partition(":")
            except ValueError:
                raise ContainustError(
                    "I006",
                    f"the stored login for {registry} is damaged",
                    f"`docker login {registry}` writes it anew",
                ) from None
            return Credentials(user, password.rstrip("\0"))
    return None


def _docker_config() -> dict[str, Any]:
    from json import loads

    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        with open(f"{directory}/config.json", "rb") as file:
            value = loads(file.read(1 << 20))
    except OSError:
        return {}
    except (ValueError, RecursionError):
        raise ContainustError("I006", f"{directory}/config.json is no valid JSON", "mend or remove it") from None
    return value if isinstance(value, dict) else {}


def _object(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _ask_helper(helper: str, key: str) -> Credentials | None:
    """docker-credential-helpers' protocol: the server's name in, an object with Username and Secret out."""
    from json import loads
    from subprocess import TimeoutExpired, run

    if not helper.replace("-", "").replace("_", "").isalnum():
        raise ContainustError(
            "I006", f"credential helper {helper!r} has no valid name", "correct ~/.docker/config.json"
        )
    try:
        done = run(
            [f"docker-credential-{helper}", "get"],
            input=key.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        raise ContainustError(
            "I006",
            f"the credential helper docker-credential-{helper} is not installed",
            "install it, or remove it from ~/.docker/config.json",
        ) from None
    except TimeoutExpired:
        raise ContainustError(
            "I006", f"docker-credential-{helper} did not answer", "run it by hand to see why"
        ) from None
    if done.returncode:
        return None  # the helper has no login for this registry
    try:
        value = loads(done.stdout)
        user, secret = str(value["Username"]), str(value["Secret"])
    except (ValueError, KeyError, TypeError):
        raise ContainustError(
            "I006", f"docker-credential-{helper} gave no valid answer", "run it by hand to see why"
        ) from None
    return Credentials(token=secret) if user == "<token>" else Credentials(user, secret)


def challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme in lower case and the parameters of a WWW-Authenticate header (RFC 9110, section 11.6.1)."""
    scheme, _, rest = header.strip().partition(" ")
    parameters: dict[str, str] = {}
    while rest:
        rest = rest.lstrip(" ,")
        name, equals, rest = rest.partition("=")
        if not equals:
            break
        if rest.startswith('"'):
            end = rest.find('"', 1)
            if end < 0:
                break
            value, rest = rest[1:end], rest[end + 1 :]
        else:
            value, _, rest = rest.partition(",")
        parameters[name.strip().lower()] = value.strip()
    return scheme.lower(), parameters
