"""A disk that fails, as the broker sees it: system calls on its journal's files return EIO, or wait first.

The broker makes these calls without the C library, so nothing that is loaded before it could come in between. seccomp can: this
file, run as a program, has Linux tell the test of such calls, and becomes the broker. The test answers each from outside: it is
made, or it fails. So the broker's own sandbox stays as it is.
"""

import array
import ctypes
import errno
import fcntl
import fnmatch
import os
import pathlib
import platform
import select
import socket
import struct
import subprocess
import sys
import threading

# By their numbers, which are Linux's for good. All have the descriptor first.
CALLS = {
    "x86_64": {
        "pread64": 17, "pwrite64": 18, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "getdents64": 217, "fallocate": 285,
    },
    "aarch64": {
        "ftruncate": 46, "fallocate": 47, "getdents64": 61, "pread64": 67, "pwrite64": 68, "fsync": 82, "fdatasync": 83,
    },
}.get(platform.machine(), {})  # fmt: skip
NAMES = {number: name for name, number in CALLS.items()}
SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine())

# linux/seccomp.h
NOTIFICATION = struct.Struct("QIIiIQ6Q")
ANSWER = struct.Struct("QqiI")
RECEIVE, SEND = 0xC0502100, 0xC0182101
GO_ON = 1


def become(channel: int, command: list[str]) -> None:
    """Turns this process into the broker; the descriptor that its calls are told of at has gone through the socket."""
    load, equal, give = 0x20, 0x15, 0x06
    allow, notify = 0x7FFF0000, 0x7FC00000
    steps = [(load, 0, 0, 0)]
    steps += [(equal, len(NAMES) - at, 0, number) for at, number in enumerate(NAMES)]
    steps += [(give, 0, 0, allow), (give, 0, 0, notify)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, new_listener = 38, 1, 8
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    with socket.socket(fileno=channel) as test:
        listener = libc.syscall(SECCOMP, set_filter, new_listener, program)
        if listener < 0:
            sys.exit(f"seccomp cannot tell of system calls here: {os.strerror(ctypes.get_errno())}")
        socket.send_fds(test, [b"x"], [listener])
    os.execv(command[0], command)


class NotHere(Exception):
    """This system cannot do it; the sentence says why."""


class Fault:
    """A call that fails: `reached` is set when it is made. Where it is held it fails only at `let_go`."""

    def __init__(self, call: str, name: str, skip: int, is_held: bool, is_lasting: bool):
        self.call, self.name, self.skip, self.is_held, self.is_lasting = call, name, skip, is_held, is_lasting
        self.reached = threading.Event()
        self.held: tuple[int, int] | None = None

    def takes(self, call: str, path: pathlib.Path) -> bool:
        if call != self.call or not fnmatch.fnmatch(path.name, self.name):
            return False
        if self.reached.is_set():
            return self.is_lasting
        self.skip -= 1
        return self.skip < 0

    def let_go(self) -> None:
        assert self.held, "nobody made the call"
        fail(*self.held)


def answer(listener: int, call: int, error: int, flags: int) -> None:
    try:
        fcntl.ioctl(listener, SEND, ANSWER.pack(call, 0, error, flags))
    except FileNotFoundError:
        pass  # the broker was killed meanwhile


def fail(listener: int, call: int) -> None:
    answer(listener, call, -errno.EIO, 0)


class FaultyDisk:
    """What the calls on the files of a directory, and on itself, come to. It does nothing of itself."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.faults: list[Fault] = []

    def fail(self, call: str, name: str = "*.seg", skip: int = 0, is_held: bool = False, is_lasting: bool = False) -> Fault:
        """The next such call on a file of that name fails, or the one after `skip` more; and all behind it, if that lasts."""
        assert call in CALLS
        self.faults.append(Fault(call, name, skip, is_held, is_lasting))
        return self.faults[-1]

    def mend(self) -> None:
        self.faults = []

    def start(self, command: list[str], **popen) -> subprocess.Popen:
        """Starts a broker on it."""
        if not CALLS or sys.platform != "linux":
            raise NotHere(f"the numbers of system calls on {sys.platform} {platform.machine()} are not known")
        here, there = socket.socketpair()
        with here:
            with there:
                starter = [sys.executable, __file__, str(there.fileno()), *command]
                process = subprocess.Popen(starter, pass_fds=[there.fileno()], **popen)
            _, listeners, _, _ = socket.recv_fds(here, 1, 1)
        if not listeners:
            process.wait()
            raise NotHere("seccomp cannot tell of system calls here")
        threading.Thread(target=self._attend, args=(process.pid, listeners[0]), daemon=True).start()
        return process

    def _attend(self, pid: int, listener: int) -> None:
        end = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(end, select.POLLIN)
        while not any(descriptor == end for descriptor, _ in poll.poll()):
            told = array.array("B", bytes(NOTIFICATION.size))
            try:
                fcntl.ioctl(listener, RECEIVE, told)
            except FileNotFoundError:
                continue  # the thread was killed meanwhile
            call, thread, _, number, _, _, descriptor, *_ = NOTIFICATION.unpack(told)
            self._judge(listener, call, NAMES[number], thread, descriptor & 0xFFFFFFFF)
        os.close(end)
        os.close(listener)

    def _judge(self, listener: int, call: int, name: str, thread: int, descriptor: int) -> None:
        try:
            path = pathlib.Path(os.readlink(f"/proc/{thread}/fd/{descriptor}"))
        except FileNotFoundError:
            path = pathlib.Path()
        is_ours = self.directory in (path, path.parent)
        fault = next((fault for fault in self.faults if is_ours and fault.takes(name, path)), None)
        if fault is None:
            answer(listener, call, 0, GO_ON)
        elif fault.is_held and not fault.held:
            fault.held = (listener, call)
            fault.reached.set()
        else:
            fault.reached.set()
            fail(listener, call)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
