"""zstd streams through the system's ``libzstd.so.1`` (zstd.h, "Streaming decompression"), where Python has none."""

from __future__ import annotations

import ctypes

OUT = 1 << 20  # bytes of output of one call


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def load() -> ctypes.CDLL:
    """The library. Raises OSError where there is none."""
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


class Decompressor:
    """One frame, with the interface of bz2 and lzma. A damaged one raises ValueError."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._stream = library.ZSTD_createDStream()
        if not self._stream:
            raise MemoryError
        self._pending = b""
        self._out = ctypes.create_string_buffer(OUT)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def __del__(self) -> None:
        if getattr(self, "_stream", None):
            self._library.ZSTD_freeDStream(self._stream)

    def decompress(self, data: bytes, limit: int) -> bytes:
        """Up to :data:`OUT` bytes of output; what of ``data`` is not used yet is kept."""
        data = self._pending + data if self._pending else data
        given = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        made = _Buffer(ctypes.addressof(self._out), min(OUT, limit), 0)
        left = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(made), ctypes.byref(given))
        if self._library.ZSTD_isError(left):
            raise ValueError(self._library.ZSTD_getErrorName(left).decode())
        self._pending = data[given.pos :]
        if left == 0:
            self.eof, self.unused_data, self._pending = True, self._pending, b""
        # A full output may have more behind it; else the library has taken all there was.
        self.needs_input = not self._pending and made.pos < made.size
        return ctypes.string_at(self._out, made.pos)
