"""A real MooseFS on this machine: the volume of two hosts, whose links can be cut.

Master and chunkserver live in one network namespace, the clients A and B in one each. Which host a program runs on
is a matter of the mount alone: whatever uses ``.a`` goes through A's client, in whichever namespace it runs.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Self

Host = Literal["a", "b"]

_NET: Final = "10.77.66"  # in namespaces of our own: it never meets another run's
_SERVER: Final = f"{_NET}.1"
_CLIENTS: Final[dict[Host, str]] = {"a": f"{_NET}.2", "b": f"{_NET}.3"}
_CLIENT_PORT: Final = ":24CD"  # 9421, as /proc/net/tcp has it
_CHUNKSERVER_PORT: Final = ":24CC"
_ESTABLISHED: Final = "01"
_LISTENING: Final = "0A"
_PREFIX: Final = "mfs-"
_NAMESPACES: Final = Path("/run/netns")
_EMPTY_METADATA: Final = Path("/var/lib/mfs/metadata.mfs.empty")
_COMMANDS: Final = ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetquota", "ip", "nsenter")
_UP_TIMEOUT_S: Final = 60.0
_COMMAND_TIMEOUT_S: Final = 20.0


def reason_missing() -> str | None:
    """Why there can be no MooseFS here, or None."""
    if os.geteuid() != 0:
        return "not root: no MooseFS"
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse: no MooseFS"
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing or not _EMPTY_METADATA.exists():
        return (
            f"{', '.join(missing) or _EMPTY_METADATA} is missing: no MooseFS (apt-get install "
            "moosefs-master moosefs-chunkserver moosefs-client fuse3 iproute2)"
        )
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "no network namespaces may be made: no MooseFS"


class MooseFS:
    """Up from construction, in the main thread, to down(); any number at once, in any number of processes."""

    def __init__(self) -> None:
        sweep()
        self._root = Path(tempfile.mkdtemp(prefix="moosefs-"))
        self._name = f"{_PREFIX}{os.getpid()}-{self._root.name.removeprefix('moosefs-')}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folders = 0
        try:
            self._make_network()
            self._start_servers()
            self._mount()
        except BaseException:
            self.down()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def a(self) -> Path:
        """The volume as host A sees it."""
        return self._root / "a"

    @property
    def b(self) -> Path:
        """The volume as host B sees it."""
        return self._root / "b"

    def fresh(self) -> str:
        """The name of a new empty folder of the volume: ``moosefs.a / name`` and ``moosefs.b / name``."""
        self._folders += 1
        name = f"folder{self._folders}"
        (self.a / name).mkdir()
        return name

    def quota(self, path: str, limit_bytes: int) -> None:
        """Sets a hard limit for the sum of the lengths of all files below a folder, made if need be."""
        (self.a / path).mkdir(parents=True, exist_ok=True)
        self._inside("a", "mfssetquota", "-L", str(limit_bytes), str(self.a / path))

    def cut(self, host: Host) -> None:
        """Takes the host's network away. Calls on its mount hang, as they do on RunPod."""
        _run("ip", "-n", self._namespace("s"), "link", "set", f"v{host}", "down")

    def restore(self, host: Host) -> None:
        """Gives the network back; what hung goes on within seconds."""
        _run("ip", "-n", self._namespace("s"), "link", "set", f"v{host}", "up")

    def down(self) -> None:
        """Takes everything down and away, hung or not. A second call does nothing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(_COMMAND_TIMEOUT_S)
        self._processes.clear()
        _clear(self._name, self._root)

    def _namespace(self, member: str) -> str:
        return f"{self._name}-{member}"

    def _make_network(self) -> None:
        server = self._namespace("s")
        for member in ("s", *_CLIENTS):
            _run("ip", "netns", "add", self._namespace(member))
            _run("ip", "-n", self._namespace(member), "link", "set", "lo", "up")
        # The folder of a run that died is found through this file.
        (self._root / "name").write_text(self._name)
        _run("ip", "-n", server, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", server, "addr", "add", f"{_SERVER}/24", "dev", "br0")
        _run("ip", "-n", server, "link", "set", "br0", "up")
        for host, address in _CLIENTS.items():
            client = self._namespace(host)
            pair = ("peer", "name", "eth0", "netns", client)
            _run("ip", "-n", server, "link", "add", f"v{host}", "type", "veth", *pair)
            _run("ip", "-n", server, "link", "set", f"v{host}", "master", "br0", "up")
            _run("ip", "-n", client, "addr", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", client, "link", "set", "eth0", "up")

    def _start_servers(self) -> None:
        for folder in ("etc", "master", "chunkserver", "chunks", "a", "b"):
            (self._root / folder).mkdir()
        etc, master = self._root / "etc", self._root / "master"
        shutil.copy(_EMPTY_METADATA, master / "metadata.mfs")
        (etc / "exports.cfg").write_text("*\t/\trw,alldirs,admin,maproot=0:0\n*\t.\trw\n")
        (etc / "topology.cfg").touch()
        (etc / "hdd.cfg").write_text(f"{self._root / 'chunks'}\n")
        common = "WORKING_USER = root\nWORKING_GROUP = root\nNICE_LEVEL = 0\n"
        (etc / "master.cfg").write_text(
            f"{common}DATA_PATH = {master}\nEXPORTS_FILENAME = {etc / 'exports.cfg'}\n"
            f"TOPOLOGY_FILENAME = {etc / 'topology.cfg'}\nMATOML_LISTEN_HOST = {_SERVER}\n"
            f"MATOCS_LISTEN_HOST = {_SERVER}\nMATOCL_LISTEN_HOST = {_SERVER}\n"
        )
        (etc / "chunkserver.cfg").write_text(
            f"{common}DATA_PATH = {self._root / 'chunkserver'}\nHDD_CONF_FILENAME = {etc / 'hdd.cfg'}\n"
            f"MASTER_HOST = {_SERVER}\nCSSERV_LISTEN_HOST = {_SERVER}\n"
        )
        self._start("s", "mfsmaster", "-f", "-c", str(etc / "master.cfg"), "start")
        self._wait_until(lambda: self._master_has(_CLIENT_PORT, _LISTENING))
        self._start("s", "mfschunkserver", "-f", "-c", str(etc / "chunkserver.cfg"), "start")
        # A write that comes before the chunkserver would be tried again only seconds later.
        self._wait_until(lambda: self._master_has(_CHUNKSERVER_PORT, _ESTABLISHED))

    def _mount(self) -> None:
        for host in _CLIENTS:
            self._start(
                host, "mfsmount", "-f", "-H", _SERVER, str(self._root / host), "-o", "mfsnice=0"
            )
        self._wait_until(lambda: _is_mount(self.a) and _is_mount(self.b))
        self._wait_until(self._can_write)
        # Until the chunkserver has told the master of its disk, the volume has no room, and a fill would be refused.
        self._wait_until(lambda: all(os.statvfs(root).f_bavail for root in (self.a, self.b)))
        self._inside("a", "mfssetgoal", "-r", "1", str(self.a))
        # Removed files would stay in the trash for a day, and with them their chunks.
        self._inside("a", "mfssettrashtime", "-r", "0", str(self.a))

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _UP_TIMEOUT_S
        while not condition():
            ended = [process for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"MooseFS did not come up:\n{self._logs()}")
            time.sleep(0.02)

    def _master_has(self, port: str, state: str) -> bool:
        """Whether the master has such a socket, by the list of its own namespace."""
        sockets = Path(f"/proc/{self._processes[0].pid}/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in sockets]
        return any(f[1].endswith(port) and f[3] == state for f in fields)

    def _can_write(self) -> bool:
        try:
            with (self.a / ".probe").open("wb") as probe:
                probe.write(b"ok")
                os.fsync(probe.fileno())
            return (self.b / ".probe").read_bytes() == b"ok"
        except OSError:
            return False

    def _logs(self) -> str:
        logs = sorted(self._root.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in logs)

    def _start(self, member: str, *command: str) -> None:
        """Starts a process that does not outlive this one, not even where this one is killed."""
        with (self._root / f"{command[0]}-{member}.log").open("wb") as log:
            inside = ("nsenter", f"--net={_NAMESPACES / self._namespace(member)}")
            self._processes.append(
                subprocess.Popen(
                    [*inside, "setpriv", "--pdeathsig", "KILL", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _inside(self, host: Host, *command: str) -> None:
        # mfsmount's tools talk to it through a port on 127.0.0.1 of its namespace.
        _run("nsenter", f"--net={_NAMESPACES / self._namespace(host)}", *command)


def sweep() -> None:
    """Clears away what runs left behind that were killed."""
    for file in Path(tempfile.gettempdir()).glob("moosefs-*/name"):
        name = file.read_text()
        pid = name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            _clear(name, file.parent)


def _clear(name: str, root: Path) -> None:
    mounts = [root / host for host in _CLIENTS if _is_mount(root / host)]
    for mount in mounts:
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    for namespace in _NAMESPACES.glob(f"{name}-*"):
        subprocess.run(["ip", "netns", "del", namespace.name], capture_output=True, check=False)
    if not any(map(_is_mount, mounts)):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(root)


def _is_mount(path: Path) -> bool:
    """By the list of mounts: asking the path itself could hang."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4] == str(path) for line in lines)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_S
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
