"""What this machine's clock is worth: does the kernel say that something keeps it in step?

adjtimex(2) with no change asked for: any user may, and every time service (chrony, ntpd, systemd-timesyncd) sets what
it reads. Nothing is known where the call is not there; then nothing is claimed.
"""

from __future__ import annotations

import ctypes
import functools
import sys

#: Of `struct timex` on 64-bit Linux: size with room to spare, and where maximum error (µs) and status lie.
_SIZE, _MAXERROR, _STATUS = 256, 24, 40
_STA_UNSYNC = 0x0040


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def state() -> dict[str, bool | int | None]:
    """`synchronised`: True, False, or None when unknown; `error_us`: how far off it may be at most, in microseconds,
    as the time service says (None when it is not synchronised)."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_long) != 8:
        return {"synchronised": None, "error_us": None}
    buffer = ctypes.create_string_buffer(_SIZE)
    try:
        if _library().adjtimex(buffer) < 0:
            return {"synchronised": None, "error_us": None}
    except (OSError, AttributeError):
        return {"synchronised": None, "error_us": None}
    status = int.from_bytes(buffer.raw[_STATUS : _STATUS + 4], sys.byteorder)
    if status & _STA_UNSYNC:
        return {"synchronised": False, "error_us": None}
    return {"synchronised": True, "error_us": int.from_bytes(buffer.raw[_MAXERROR : _MAXERROR + 8], sys.byteorder)}
