"""Brings what a command needs of an artifact folder in object storage here, and sends back what it made."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_cli.artifacts import FOLDER_RECORDS, Artifacts
from pretrain_cli.cli.sent import State, add_sent, read_sent, state_of, write_sent
from pretrain_cli.errors import PtkError
from pretrain_cli.processes import LAUNCHER, rank
from pretrain_cli.trees import everything_in

if TYPE_CHECKING:
    from pretrain_cli.cli.session import Session
    from pretrain_cli.remote import RemoteFolder

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?!/)(.+)", re.DOTALL)
"""An address, also where a path made of it has lost a slash. A drive of Windows has one letter."""
SEND_S = 20.0
"""How often a training's checkpoints and metrics are sent while it runs."""
ALL_ROWS = ("plan", "inspect")
"""Commands that read the rows to train on, too; training fetches them itself, as its config says."""
FOLDERS = ("runs", "evaluation", "comparisons", "exports")
"""What commands make besides data."""
LAST = (*FOLDER_RECORDS, "run.json")
"""What says that a folder is complete is sent after what it vouches for."""


def find_artifacts(given: Path) -> Artifacts:
    """The folder that ``--artifacts`` names: here, or in object storage with a copy here."""
    found = ADDRESS.fullmatch(str(given))
    if found is None or found[1] == "file":
        return Artifacts(given)
    from pretrain_cli.remote import mirror_of

    url = f"{found[1]}://{found[2]}"
    return Artifacts(mirror_of(url), url)


@contextlib.contextmanager
def shared_folder(session: Session, command: str) -> Iterator[None]:
    """Bring what ``command`` needs here first, and send what it made, also where it fails."""
    artifacts = session.artifacts
    if not artifacts.remote or command == "prepare":  # which does this itself
        yield
        return
    from pretrain_cli.cli.shared_runs import bring_runs
    from pretrain_cli.data.sharing import bring_data
    from pretrain_cli.remote import RemoteFolder

    first = LAUNCHER not in os.environ and rank() == 0
    with session.progress() as progress:
        import filelock

        artifacts.root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(artifacts.root / ".bringing.lock"):  # processes of one machine share the copy
            bring_data(artifacts, progress, ("train", "validation") if command in ALL_ROWS else ("validation",))
            remote = RemoteFolder(artifacts.remote, progress)
            further = bring_runs(artifacts, remote)
        sender = Sender(artifacts, remote, session.console.warn, further)
    if not first:
        yield
        return
    with sender:
        yield


class Sender:
    """Sends runs and reports while a command runs, and all of them once it has ended.

    Args:
        artifacts: the folder here.
        remote: the same folder in object storage.
        warn: is told what couldn't be sent, where the command has failed anyway.
        further: runs of which not all is there yet.
    """

    def __init__(
        self, artifacts: Artifacts, remote: RemoteFolder, warn: Callable[[str], None], further: Collection[str] = ()
    ) -> None:
        self.artifacts, self.remote, self.warn = artifacts, remote, warn
        there = {name: size for place in (*FOLDERS, "latest") for name, size in remote.files(place).items()}
        here = {name: state for name, _, state in self._files()}
        known = {name: state for name, state in read_sent(artifacts.root).items() if name in here}
        brought = {name for name in here if name.startswith("runs/") and name.split("/")[1] not in further}
        self._sent: dict[str, State] = {
            name: state
            for name, state in here.items()
            if there.get(name) == state[0]
            and (name in brought if name.startswith("runs/") else known.get(name) == state)
        }
        write_sent(artifacts.root, known | self._sent)
        self._there = here.keys() & there.keys()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._send()
        except PtkError as failed:
            kept = f"All of it is kept in {self.artifacts.root}; the next command with this --artifacts sends it."
            if error is None:
                raise type(failed)(failed.message, kept) from failed
            self.warn(f"{failed.message} {kept}")

    def _keep_sending(self) -> None:
        while not self._ended.wait(SEND_S):
            with contextlib.suppress(PtkError):  # what can't be sent now is sent in the end
                self._send()

    def _files(self) -> list[tuple[str, Path, State]]:
        """(name, path, size and time) of all that is complete, what vouches for others last."""
        root = self.artifacts.root
        found = []
        for folder in FOLDERS:
            for path in everything_in(root / folder):
                name = path.relative_to(root).as_posix()
                with contextlib.suppress(FileNotFoundError):  # a checkpoint may go while it is listed
                    parts = name.split("/")[: -1 if path.name in FOLDER_RECORDS else None]
                    if path.is_file() and not any(part.startswith((".", "#")) for part in parts):
                        found.append((name, path, state_of(path)))
        if self.artifacts.latest.is_file():
            found.append(("latest", self.artifacts.latest, state_of(self.artifacts.latest)))
        return sorted(found, key=lambda entry: (entry[1].name in LAST, entry[0] == "latest"))

    def _send(self) -> None:
        files = self._files()
        for name, path, state in files:
            if self._sent.get(name) != state:
                with contextlib.suppress(FileNotFoundError):
                    self.remote.put(path, name)
                    self._sent[name] = state
                    add_sent(self.artifacts.root, name, state)
                    self._there.add(name)
        gone = self._gone({name for name, _, _ in files})
        self.remote.remove(sorted(gone, key=lambda name: name.rpartition("/")[2] not in LAST))
        self._there -= gone

    def _gone(self, here: set[str]) -> set[str]:
        """What has been removed here, and is still there: old checkpoints, and all of a run that was removed."""
        missing = self._there - here
        runs = {name.split("/")[1] for name in missing if name.startswith("runs/") and name.endswith("/run.json")}
        runs -= {name.split("/")[1] for name in here if name.endswith("/run.json")}
        never_here = {name for run in runs for name in self.remote.files(f"runs/{run}/checkpoints")}
        return never_here | {
            name
            for name in missing
            if "/checkpoints/" in name or name == "latest" or name.startswith(tuple(f"runs/{run}/" for run in runs))
        }
