"""Makes a process see what another system lacks: a sitecustomize that removes modules and functions of POSIX.

Processes are spawned there, as on Windows and macOS, and a text file that ptk opens without naming its encoding is an
error.
"""

from __future__ import annotations

import os
from pathlib import Path

MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "readline", "syslog")
OF_OS = (
    *("fork", "forkpty", "sysconf", "getloadavg", "sched_getaffinity", "statvfs", "getuid", "geteuid", "getpgid"),
    *("killpg", "setsid", "nice", "mkfifo", "uname", "O_DIRECTORY", "O_NONBLOCK", "posix_fadvise", "fchmod", "chown"),
)
OF_SIGNAL = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGPIPE", "pthread_sigmask", "setitimer")
SITE = '''
import builtins, multiprocessing, os, signal, sys, warnings

multiprocessing.set_start_method("spawn", force=True)
warnings.filterwarnings("error", category=EncodingWarning, module="pretrain_cli")

def ours(depth):
    return sys._getframe(depth).f_globals.get("__name__", "").startswith("pretrain_cli")

there = builtins.__import__

def imports(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name.partition(".")[0] in {modules!r} and ours(2):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return there(name, globals, locals, fromlist, level)

builtins.__import__ = imports

Module = type(os)

class Hiding(Module):
    """A module that hides names from ptk alone: torch and the standard library were built for this system."""

    def __getattribute__(self, name):
        get = Module.__getattribute__
        if name in get(self, "_hidden") and ours(2):
            raise AttributeError(f"module {{get(self, '__name__')!r}} has no attribute {{name!r}}")
        return get(self, name)

for module, hidden in ((os, {of_os!r}), (signal, {of_signal!r})):
    module._hidden = frozenset(hidden)
    module.__class__ = Hiding

opened = os.open

def no_folders(path, flags, *rest, **keywords):
    if ours(2) and isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, flags, *rest, **keywords)

os.open = no_folders
'''


def without_posix(folder: Path) -> dict[str, str]:
    """Variables under which ptk's code finds nothing that only POSIX has, in a process and in those that it starts."""
    folder.mkdir(exist_ok=True)
    site = SITE.format(modules=MODULES, of_os=OF_OS, of_signal=OF_SIGNAL)
    (folder / "sitecustomize.py").write_text(site, encoding="utf-8")
    path = os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)
    return {"PYTHONPATH": path, "PYTHONWARNDEFAULTENCODING": "1"}
