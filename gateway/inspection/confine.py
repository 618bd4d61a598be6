"""What a worker gives up before it opens the first file: resource limits, and system calls by a seccomp filter.

Linux only. The filter is classic BPF, a dozen instructions, installed through prctl(2), so that no library is needed:
refused calls answer EPERM, which Python reports as an ordinary OSError.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_DUMPABLE, PR_SET_PDEATHSIG = 38, 22, 4, 1
SECCOMP_MODE_FILTER = 2
#: audit architecture and the numbers of the calls refused outright (asm/unistd_64.h, asm-generic/unistd.h)
_ARCHITECTURES = {
    # connect, bind, listen, accept, accept4, sendto is needed by the answer channel's send(2)
    "x86_64": (0xC000003E, {"socket": 41}, (42, 49, 50, 43, 288, 101, 310, 311, 272, 308, 165, 166, 155, 161, 175, 313, 246, 321, 298, 250, 248)),
    "aarch64": (0xC00000B7, {"socket": 198}, (203, 200, 201, 202, 242, 117, 270, 271, 97, 268, 40, 39, 41, 51, 105, 273, 104, 280, 241, 219, 217)),
}
_AF_UNIX = 1


def confine(*, memory: int) -> None:
    """Irrevocable. `memory`: address space in bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)  # a worker without its daemon ends
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    _refuse_calls(libc)


def allow_cpu(seconds: float) -> None:
    """CPU time for the next file, on top of what the process used already. SIGXCPU ends a worker that goes on."""
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _refuse_calls(libc: ctypes.CDLL) -> None:
    """No sockets but local ones, no tracing, mounting, kernel keys or modules."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return
    architecture, names, refused = known
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, deny = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM
    body: list[tuple[int, int, int, int]] = []  # code, jump if true, jump if false, constant
    body.append((load, 0, 0, 4))  # seccomp_data.arch
    body.append((equal, 1, 0, architecture))
    body.append((answer, 0, 0, deny))
    body.append((load, 0, 0, 0))  # seccomp_data.nr
    for number in refused:
        body += [(equal, 0, 1, number), (answer, 0, 0, deny)]
    body += [
        (equal, 0, 3, names["socket"]),
        (load, 0, 0, 16),  # args[0], low word: the address family
        (equal, 1, 0, _AF_UNIX),
        (answer, 0, 0, deny),
        (answer, 0, 0, allow),
    ]
    code = b"".join(struct.pack("HBBI", *row) for row in body)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(body), ctypes.addressof(buffer)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "the seccomp filter of an inspection worker could not be installed")
