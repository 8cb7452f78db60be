"""Compressed archives to plain ones, told apart by their first bytes, bounded in what they may become.

gzip through isal where it is installed (about twice as fast as zlib), zstd through the standard library of Python
3.14, else through backports.zstd or the system's libzstd: all can be told how much to give at once, which a bomb makes
necessary. Several members one after another are one stream, as gzip(1) and zstd(1) have it.
"""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.image.limits import RATIO_FLOOR, Limits, exceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Source(Protocol):
        def read(self, count: int = -1, /) -> bytes: ...
        def seek(self, position: int, /) -> object: ...


READ = 1 << 18  # bytes at once; what comes of them is written while it is in the processor's cache
MAGICS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"))


def compression_of(head: bytes) -> str:
    """``gzip``, ``zstd``, ``xz``, ``bzip2`` or empty for none, by the first bytes of a file."""
    for magic, name in MAGICS:
        if head.startswith(magic):
            return name
    if len(head) >= 8 and 0x184D2A50 <= int.from_bytes(head[:4], "little") <= 0x184D2A5F:
        return "zstd"  # a skippable frame, as zstd:chunked layers may begin
    return ""


def decompress(source: Source, target: str, limits: Limits, grown: Callable[[int], None]) -> int:
    """Decompress ``source``, an open file at its beginning, into the new file ``target``; the bytes written.

    ``grown`` is told how many there are after every piece. Raises I004 for a damaged or truncated stream and I003 when
    it grows beyond the bounds of ``limits``.
    """
    head = source.read(16)
    source.seek(0)
    kind = compression_of(head)
    bound = limits.size + (1 << 30)
    written = 0
    consumed = [0]
    try:
        with open(target, "xb", buffering=0) as out:
            for piece in _pieces(kind, source, consumed):
                written += len(piece)
                if written > bound:
                    raise exceeded(f"the archive grows beyond {limits.size} bytes", "CONTAINUST_IMAGE_MAX_SIZE")
                if written > RATIO_FLOOR and written > consumed[0] * limits.ratio:
                    raise exceeded(
                        f"the archive grows to more than {limits.ratio} times its size",
                        "CONTAINUST_IMAGE_MAX_RATIO",
                    )
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]
                grown(written)
    except (EOFError, ValueError) as error:
        raise _damaged(kind, error) from error
    except ContainustError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(kind, error) from error
    except Exception as error:
        if type(error).__name__ in ("error", "IsalError", "LZMAError", "ZstdError"):
            raise _damaged(kind, error) from error
        raise
    return written


def _damaged(kind: str, error: Exception) -> ContainustError:
    return ContainustError(
        "I004",
        f"the {kind or 'plain'} data are damaged or cut off: {error}",
        "download or make the archive again",
    )


def _pieces(kind: str, source: Source, consumed: list[int]) -> Iterator[bytes]:
    if kind == "":
        while piece := source.read(READ):
            consumed[0] += len(piece)
            yield piece
        return
    make = _MAKERS[kind]()
    decoder = make()
    fresh = True
    while chunk := source.read(READ):
        consumed[0] += len(chunk)
        while chunk:
            if decoder.eof:
                # What follows a member must be another one; zero padding and foreign bytes end the stream.
                if len(chunk) < 16:
                    chunk += source.read(16)
                if compression_of(chunk) != kind:
                    return
                decoder = make()
            fresh = False
            piece = decoder.decompress(chunk, READ * 4)
            chunk = b""
            if piece:
                yield piece
            while not decoder.eof and not decoder.needs_input:
                piece = decoder.decompress(b"", READ * 4)
                if not piece:
                    break
                yield piece
            if decoder.eof:
                chunk = decoder.unused_data
    while not decoder.eof and (piece := decoder.decompress(b"", READ * 4)):
        yield piece
    if not fresh and not decoder.eof:
        raise EOFError("it ends within a stream")


class _Gzip:
    """zlib and isal streams with the interface of bz2 and lzma."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def decompress(self, data: bytes, limit: int) -> bytes:
        return bytes(self._stream.decompress(data or self._stream.unconsumed_tail, limit))

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)


def _gzip() -> Callable[[], Any]:
    try:
        from isal import isal_zlib

        return lambda: _Gzip(isal_zlib.decompressobj(wbits=31))
    except ImportError:
        import zlib

        return lambda: _Gzip(zlib.decompressobj(wbits=31))


def _bzip2() -> Callable[[], Any]:
    from bz2 import BZ2Decompressor

    return BZ2Decompressor


def _xz() -> Callable[[], Any]:
    from lzma import LZMADecompressor

    return LZMADecompressor


def _zstd() -> Callable[[], Any]:
    for module in ("compression.zstd", "backports.zstd"):
        try:
            from importlib import import_module

            found: Callable[[], Any] = import_module(module).ZstdDecompressor
            return found
        except ImportError:
            continue
    try:
        from containust.image import libzstd

        library = libzstd.load()
        return lambda: libzstd.Decompressor(library)
    except (ImportError, OSError):
        raise ContainustError(
            "I004",
            "this archive is compressed with zstd, which neither this Python nor this system can read",
            "pip install backports.zstd, or install libzstd",
        ) from None


_MAKERS: dict[str, Callable[[], Callable[[], Any]]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "zstd": _zstd,
}
