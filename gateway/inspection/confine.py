"""What a worker gives up before it opens the first file.

Resource limits (memory, CPU, new files), the file system but for its own program (Landlock), and the system calls that
lead out of the process (seccomp). Linux only; through prctl(2) and syscall(2), so that no library is needed. Refused
calls answer EPERM or EACCES, which Python reports as an ordinary OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_DUMPABLE, PR_SET_PDEATHSIG = 38, 22, 4, 1
SECCOMP_MODE_FILTER = 2
#: audit architecture, then the numbers of the refused calls (asm/unistd_64.h; asm-generic/unistd.h) in this order:
#: socket, connect, bind, listen, accept, accept4, ptrace, process_vm_readv, process_vm_writev, unshare,
#: setns, mount, umount2, pivot_root, chroot, init_module, finit_module, kexec_load, bpf, perf_event_open, keyctl,
#: add_key; execve, execveat; tkill, rt_sigqueueinfo, rt_tgsigqueueinfo; shmget, shmat, msgget, semget, mq_open (memory
#: that no limit counts); fchmod, fchmodat, fchown, fchownat, utimensat, setxattr, lsetxattr, fsetxattr, removexattr
#: (Landlock leaves them open); setuid, setgid, setresuid, setresgid; and what x86_64 has besides: fork, vfork, chmod,
#: chown, lchown, utime, utimes. socketpair stays: an event loop of asyncio, as pyHanko starts one, wakes itself
#: through one.
_ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        (41, 42, 49, 50, 43, 288, 101, 310, 311, 272, 308, 165, 166, 155, 161, 175, 313, 246, 321, 298, 250, 248,
         59, 322, 200, 129, 297, 29, 30, 68, 64, 240, 91, 268, 93, 260, 280, 188, 189, 190, 197, 105, 106, 117, 119,
         57, 58, 90, 92, 94, 132, 235),
    ),
    "aarch64": (
        0xC00000B7,
        (198, 203, 200, 201, 202, 242, 117, 270, 271, 97, 268, 40, 39, 41, 51, 105, 273, 104, 280, 241, 219, 217,
         221, 281, 130, 138, 240, 194, 196, 186, 190, 180, 52, 53, 55, 54, 88, 5, 6, 7, 14, 146, 144, 147, 149),
    ),
}  # fmt: skip
#: Calls whose first argument decides, in the same order: clone (a thread is allowed, a process is not), kill and tgkill
#: (itself alone), prlimit64 (itself alone).
_BY_ARGUMENT = {"x86_64": (56, 62, 234, 302), "aarch64": (220, 129, 131, 261)}
_CLONE_THREAD = 0x10000
#: pidfd_open, pidfd_send_signal, pidfd_getfd, process_madvise, fchmodat2: the same number on every architecture
_NEWER = (434, 424, 438, 440, 452)
#: clone3, whose flags a filter cannot see: told to be missing, so that the C library takes clone.
_CLONE3 = 435
#: io_uring_setup, io_uring_enter, io_uring_register: the same on every architecture
_IO_URING = (425, 426, 427)
#: calls of the x32 ABI carry this bit and would pass a list of ordinary numbers
_X32 = 0x40000000


#: Landlock (linux/landlock.h): system calls, the same number on every architecture, and access rights
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_OF_VERSION_1, _REFER, _TRUNCATE = 0x1FFF, 1 << 13, 1 << 14


def confine(*, memory: int, readable: tuple[Path, ...] = ()) -> None:
    """Irrevocable. memory: address space in bytes. readable: folders besides the program's own that may be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)  # a worker without its daemon ends
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _close_files(libc, readable)
    _refuse_calls(libc)


def _close_files(libc: ctypes.CDLL, readable: tuple[Path, ...]) -> None:
    """Nothing can be written, and nothing read but the interpreter, the libraries and `readable`. A kernel without
    Landlock (before 5.13) leaves this to the unit's sandbox."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    handled = _ALL_OF_VERSION_1 | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = ctypes.c_uint64(handled)
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "no Landlock ruleset for an inspection worker")
    program = Path(__file__).resolve().parents[2]
    folders = {Path(sys.prefix), Path(sys.base_prefix), program, *map(Path, sys.path), *readable}
    folders |= {Path(name) for name in ("/usr", "/lib", "/lib64", "/bin", "/etc/fonts", "/etc/ssl", "/dev/urandom")}
    folders |= {Path("/etc/ld.so.cache"), Path("/etc/localtime"), Path("/dev/null")}
    for folder in folders:
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rights = _EXECUTE | _READ_FILE | _READ_DIR if folder.is_dir() else _READ_FILE
        if folder == Path("/dev/null"):
            rights |= _WRITE_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
        os.close(descriptor)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0):
        raise OSError(ctypes.get_errno(), "an inspection worker could not give up the file system")
    os.close(ruleset)


def allow_cpu(seconds: float) -> None:
    """CPU time for the next file, on top of what the process used already. SIGXCPU ends a worker that goes on."""
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _refuse_calls(libc: ctypes.CDLL) -> None:
    """No network, tracing, mounting, kernel keys or modules, no process of its own, no signal to another: the answer
    goes out on a channel that is open."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return
    architecture, refused = known
    # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_JMP|JSET|K, BPF_RET|K
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, deny = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM
    body = [  # code, jump if true, jump if false, constant
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, architecture),
        (answer, 0, 0, deny),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, 0, 1, _X32),
        (answer, 0, 0, deny),
    ]
    for number in (*refused, *_IO_URING, *_NEWER):
        body += [(equal, 0, 1, number), (answer, 0, 0, deny)]
    body += [(equal, 0, 1, _CLONE3), (answer, 0, 0, 0x00050000 | errno.ENOSYS)]
    clone, kill, tgkill, prlimit = _BY_ARGUMENT[platform.machine()]
    first = 16  # seccomp_data.args[0], its lower half (both architectures are little-endian)
    body += [(equal, 0, 4, clone), (load, 0, 0, first), (any_bit, 1, 0, _CLONE_THREAD)]
    body += [(answer, 0, 0, deny), (answer, 0, 0, allow)]
    for number, own in ((kill, os.getpid()), (tgkill, os.getpid()), (prlimit, 0)):
        body += [(equal, 0, 4, number), (load, 0, 0, first), (equal, 1, 0, own)]
        body += [(answer, 0, 0, deny), (answer, 0, 0, allow)]
    body.append((answer, 0, 0, allow))
    code = b"".join(struct.pack("HBBI", *row) for row in body)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(body), ctypes.addressof(buffer)))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "the seccomp filter of an inspection worker could not be installed")
