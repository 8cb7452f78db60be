"""ECDSA on the curve P-256 (FIPS 186-5, SEC 1): verification only, which has no secrets to keep."""

from __future__ import annotations

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
# SubjectPublicKeyInfo of an uncompressed point on this curve, up to the point (RFC 5480).
PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")

Point = tuple[int, int] | None  # None is the point at infinity


def public_key(pem: bytes) -> tuple[int, int]:
    """The point of a PEM file's public key. Raises ValueError for anything else."""
    from base64 import b64decode

    _, begin, rest = pem.partition(b"-----BEGIN PUBLIC KEY-----")
    body, end, _ = rest.partition(b"-----END PUBLIC KEY-----")
    if not begin or not end:
        raise ValueError("it has no PUBLIC KEY block")
    der = b64decode(b"".join(body.split()), validate=True)
    if not der.startswith(PREFIX) or len(der) != len(PREFIX) + 65 or der[len(PREFIX)] != 4:
        raise ValueError("it is no uncompressed point of P-256")
    x, y = int.from_bytes(der[-64:-32], "big"), int.from_bytes(der[-32:], "big")
    if x >= P or y >= P or (y * y - (x * x * x - 3 * x + B)) % P:
        raise ValueError("its point is not on the curve")
    return x, y


def verify(key: tuple[int, int], hashed: int, signature: bytes) -> bool:
    """Whether ``signature`` (DER) is one of ``hashed``, a SHA-256 as a number, by the owner of ``key``."""
    numbers = _two_integers(signature)
    if numbers is None:
        return False
    r, s = numbers
    if not (0 < r < N and 0 < s < N):
        return False
    inverse = pow(s, -1, N)
    point = _add(_multiply(hashed * inverse % N, G), _multiply(r * inverse % N, key))
    return point is not None and point[0] % N == r


def _two_integers(der: bytes) -> tuple[int, int] | None:
    """The values of SEQUENCE { INTEGER, INTEGER } in its one form, or None."""
    if len(der) < 8 or der[0] != 0x30 or der[1] != len(der) - 2 or der[1] > 127:
        return None
    values = []
    at = 2
    for _ in range(2):
        if at + 2 > len(der) or der[at] != 2 or not 0 < der[at + 1] <= 33 or at + 2 + der[at + 1] > len(der):
            return None
        body = der[at + 2 : at + 2 + der[at + 1]]
        if body[0] & 0x80 or (len(body) > 1 and body[0] == 0 and not body[1] & 0x80):
            return None
        values.append(int.from_bytes(body, "big"))
        at += 2 + len(body)
    return (values[0], values[1]) if at == len(der) else None


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, P) % P
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P) % P
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P


def _multiply(factor: int, point: Point) -> Point:
    result: Point = None
    while factor:
        if factor & 1:
            result = _add(result, point)
        point = _add(point, point)
        factor >>= 1
    return result
