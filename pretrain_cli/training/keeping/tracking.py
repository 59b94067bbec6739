"""Sends metrics to Weights & Biases, or another tracker, without ever costing the run."""

from __future__ import annotations

import importlib.util
import math
import netrc
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pretrain_cli.addresses import redact, redact_all
from pretrain_cli.artifacts import RunFolder
from pretrain_cli.config.model import Config
from pretrain_cli.errors import MissingDependencyError, first_line
from pretrain_cli.optional import to_install
from pretrain_cli.progress import Progress
from pretrain_cli.run_record import WandbRecord
from pretrain_cli.training.keeping.wandb_state import connection

LOOK_SECONDS = 5.0
INIT_SECONDS, FINISH_SECONDS = 5.0, 4.0
"""Together under 10 s: what a server that never answers may cost. wandb's own bounds are 101 s and none."""
OTHERS = {"tensorboard": "tensorboard", "trackio": "trackio", "mlflow": "mlflow"}
PUBLIC = "https://api.wandb.ai"
SETTINGS_HERE = ("wandb/settings", ".wandb/settings")
"""Where wandb looks in the working folder."""


def other_trackers(config: Config, run: RunFolder) -> list[str]:
    """What Trainer itself should report to; sets the variables that those trackers read.

    Raises:
        MissingDependencyError: the tracker's package isn't installed.
    """
    name = config.tracking.report_to
    if name not in OTHERS:
        return []
    if importlib.util.find_spec(OTHERS[name]) is None:
        raise MissingDependencyError(
            f"tracking.report_to = '{name}' needs the package {OTHERS[name]}.",
            f"Install it: {to_install(OTHERS[name])}",
        )
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.path / "tensorboard"))
    os.environ.setdefault("TRACKIO_PROJECT", config.tracking.project)
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", config.tracking.project)
    # A server that is away would hold the training up for minutes: seven tries, each after a longer pause.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    return [name]


def guard_callbacks(callbacks: Iterable[Any], names: Sequence[str], warn: Callable[[str], None]) -> None:
    """Let no error in transformers' own callbacks for ``names`` end the run: a tracker's first error ends it alone."""
    for callback in callbacks:
        name = type(callback).__name__.removesuffix("Callback").lower()
        if name in names:
            failed: list[str] = []
            for event in [event for event in dir(callback) if event.startswith("on_")]:
                setattr(callback, event, _guarded(getattr(callback, event), name, failed, warn))


def _guarded(
    event: Callable[..., Any], name: str, failed: list[str], warn: Callable[[str], None]
) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        if failed:
            return None
        try:
            return event(*arguments, **keywords)
        except Exception as error:
            failed.append(first_line(error)[:160])
            warn(f"{name} stopped ({failed[0]}); training continues, and metrics.jsonl is complete.")
            return None

    return call


def why_no_wandb(config: Config) -> str:
    """Why this run isn't tracked in W&B; empty where it is: asked for, or installed and logged in.

    Raises:
        MissingDependencyError: asked for, and not installed.
    """
    wanted, mode = config.tracking.report_to, os.environ.get("WANDB_MODE")
    if wanted not in ("auto", "wandb"):
        return f"tracking.report_to is {wanted}"
    if config.tracking.mode == "disabled":
        return "tracking.mode is disabled"
    if mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return f"{'WANDB_MODE' if mode == 'disabled' else 'WANDB_DISABLED'} switches it off"
    installed = importlib.util.find_spec("wandb") is not None
    if wanted == "wandb" and not installed:
        raise MissingDependencyError("tracking.report_to = 'wandb' needs wandb.", f"Install it: {to_install('wandb')}")
    if not installed:
        return "wandb isn't installed"
    return "" if wanted == "wandb" or logged_in() or mode == "offline" else "not logged in: wandb login"


def say_wandb(config: Config, progress: Progress, said: bool = False) -> None:
    """Show from the first second on whether the run will be tracked in W&B; ``said``: the launcher has said it."""
    reason = why_no_wandb(config)
    said = said or not reason or _declined(config)
    progress.status("W&B", f"off, {reason}" if reason else "connecting", said=said)


def _declined(config: Config) -> bool:
    """Whether the user knows that W&B is off."""
    return config.tracking.report_to == "none"


def logged_in() -> bool:
    """Whether wandb would find a key: its variable, or an entry for its server in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", PUBLIC)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _reason(error: Exception) -> str:
    """Why W&B couldn't be opened, in the user's words: wandb's own are those of the request that failed."""
    server = urlparse(os.environ.get("WANDB_BASE_URL", PUBLIC)).hostname or PUBLIC
    code = re.search(r"error (\d{3})", str(error))
    if code:
        return f"{server} refuses the key" if code[1] in ("401", "403") else f"{server} answers with error {code[1]}"
    if any(word in str(error).lower() for word in ("deadline", "timed out", "refused", "no such host", "unreachable")):
        return f"{server} doesn't answer"
    return first_line(error)[:160]


def _with_plain_arguments(call: Callable[..., Any], **keywords: Any) -> Any:
    """``call``, which records the command line, with a line that holds no secrets."""
    typed = sys.argv
    sys.argv = [redact(word) for word in typed]
    try:
        return call(**keywords)
    finally:
        sys.argv = typed


def _team(url: str) -> str:
    """The team or user that a run's page belongs to."""
    return urlparse(url).path.strip("/").partition("/")[0]


@contextmanager
def _without_settings_here(wandb: Any) -> Iterator[None]:
    """Let wandb read no settings in the working folder: it would send the key to the server that they name.

    Those of the user's own, in the home folder and in variables, count.
    """
    read = wandb.Settings.read_system_settings

    def read_own(settings: Any) -> Any:
        return read(settings.model_copy(update={"root_dir": os.devnull}))

    wandb.Settings.read_system_settings = read_own
    try:
        yield
    finally:
        wandb.Settings.read_system_settings = read


class WandbTracker:
    """One W&B run for ours. Never asks, never raises, never waits long; falls back to offline, then to nothing.

    Args:
        config: recorded whole; ``tracking`` says where the run is filed.
        run: its folder holds what isn't sent yet.
        facts: recorded beside the config (data fingerprint, parameters, device, ...).
        known: of an earlier start of the run: its id is continued.
        progress: told the state, and once what to do about an offline run.

    Attributes:
        told: how it stands, for the run's summary.
        spent_s: seconds that the training has waited for W&B in all.
    """

    def __init__(
        self, config: Config, run: RunFolder, facts: Mapping[str, Any], known: WandbRecord | None, progress: Progress
    ) -> None:
        self._config, self._folder, self._facts, self._progress = config, run.path, facts, progress
        self._name = run.name
        self._run: Any = None
        self._rows: list[list[Any]] = []
        self._tables = True
        self._state, self._looked = "online", 0.0
        self.id = known.id if known is not None else ""
        self.url = known.url if known is not None else ""
        self.mode = "off"
        self.told = ""
        self.spent_s = 0.0

    def start(self, lines: Sequence[Mapping[str, Any]] = ()) -> WandbRecord:
        """Open the run; what run.json should keep about it.

        Args:
            lines: of metrics.jsonl, where a run is resumed: a kill loses the last seconds that were on their way.
        """
        # wandb reads these at import; the banner alone costs 10 s of waiting for a server that is down.
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        mode = os.environ.get("WANDB_MODE") or self._config.tracking.mode
        if here := next((name for name in SETTINGS_HERE if Path(name).is_file()), ""):
            instead = "Name a W&B server with WANDB_BASE_URL, or in ~/.config/wandb/settings."
            self._progress.note(f"{here} isn't read. {instead}")
        before = _team(self.url)
        if mode == "online" and not logged_in():
            self._open("offline", "not logged in (wandb login)")
        elif mode == "online":
            self._open_online()
        else:
            self._open("offline", "as asked")
        if self.mode == "online":
            if before and _team(self.url) != before:
                self._progress.note(f"The run was in {before}; to continue it there: --set tracking.entity={before}")
            first = int(getattr(self._run, "starting_step", 0) or 0)  # that W&B hasn't got
            for line in lines:
                if line["step"] >= first:
                    self.log(line["step"], {key: value for key, value in line.items() if value is not None})
        return WandbRecord(id=self.id, url=self.url, mode=self.mode, folder=self._sync_folder())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send one line; the first failure switches tracking off."""
        if self._run is not None:
            finite = {key: value for key, value in values.items() if math.isfinite(value) and key != "step"}
            self._guard(lambda: self._run.log(finite, step=step))
            self._show_state()

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        """Send the table of samples with a row more for each (prompt, text); a server without tables costs only it."""
        if self._run is None or not self._tables:
            return
        self._rows += [[step, prompt, text] for prompt, text in texts]
        try:
            import wandb

            table = wandb.Table(columns=["step", "prompt", "text"], data=list(self._rows))
            self._run.log({"samples": table}, step=step)
        except Exception as error:  # tables need more of the server than metrics do
            self._tables = False
            self._progress.note(
                f"W&B takes no table of samples ({first_line(error)[:160]}); they are in samples.jsonl."
            )

    def finish(self, exit_code: int = 0) -> None:
        """Close the run; what can't be sent in time stays on the disk, and how to send it is said."""
        if self._run is None:
            return
        began, folder = time.monotonic(), self._sync_folder()
        late = self._guard(lambda: self._run.finish(exit_code=exit_code)) is False
        took = time.monotonic() - began
        if self.mode == "online" and (late or took >= 0.9 * FINISH_SECONDS):
            self.told = f"W&B hasn't received everything. Send it later: wandb sync --include-online {folder}"
            self._progress.warn(self.told)
        elif self.mode == "online":
            self.told = f"synced {self.url}"
        self._run = None

    def _show_state(self) -> None:
        """Say whether what was logged arrives: synced or retrying."""
        if self.mode != "online" or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        state = connection(Path(self._sync_folder())) or self._state
        if state != self._state:
            self._state = state
            self._progress.status("W&B", f"{state} {self.url}".strip())

    def _open_online(self) -> None:
        reason = self._try("online")
        if reason:
            self._open("offline", reason)
        else:
            self.mode, self.url = "online", str(self._run.url or "")
            self._progress.status("W&B", f"online {self.url}".strip())

    def _open(self, mode: str, why: str) -> None:
        reason = self._try(mode)
        if reason:
            self.mode = "off"
            self.told = f"off, {reason}"
            self._progress.status("W&B", self.told, said=True)
            self._progress.warn(f"W&B is off: {reason}. The run's own record is complete.")
            return
        self.mode = "offline"
        self.told = f"offline, {why}. Send the run later: wandb sync {self._sync_folder()}"
        self._progress.status("W&B", f"offline, {why}", said=True)
        self._progress.note(f"W&B is {self.told}")

    def _try(self, mode: str) -> str:
        """Open the run in ``mode``; the reason if that failed."""
        began = time.monotonic()
        try:
            import wandb

            tracking = self._config.tracking
            self.id = self.id or secrets.token_hex(4)
            with _without_settings_here(wandb):
                self._run = _with_plain_arguments(
                    wandb.init,
                    project=os.environ.get("WANDB_PROJECT") or tracking.project,
                    entity=tracking.entity or None,
                    id=self.id,
                    name=self._name,
                    resume="allow",
                    mode=mode,
                    dir=str(self._folder),
                    config=redact_all({**self._config.model_dump(mode="json"), **self._facts}),
                    settings=wandb.Settings(
                        init_timeout=INIT_SECONDS,
                        finish_timeout=FINISH_SECONDS,
                        finish_timeout_raises=False,
                        silent=True,
                        console="off",
                        disable_git=True,
                        x_disable_stats=False,
                    ),
                )
            return ""
        except Exception as error:  # whatever a tracker does, the run continues
            self._run = None
            self._end_service()
            return _reason(error)
        finally:
            self.spent_s += time.monotonic() - began

    def _end_service(self) -> None:
        """End wandb's own process, which would hold the run's id after a failed start."""
        try:
            import wandb

            wandb.teardown()
        except Exception:  # it may never have started
            return

    def _guard(self, call: Callable[[], Any]) -> bool:
        began = time.monotonic()
        try:
            call()
            return True
        except Exception as error:  # a dead wandb-core raises from log()
            folder = self._sync_folder()
            self._run, self.mode = None, "off"
            self.told = f"stopped, {_reason(error)}. Send what it kept: wandb sync --include-online {folder}"
            self._progress.status("W&B", "off", said=True)
            self._progress.warn(f"Training continues, but W&B {self.told}")
            return False
        finally:
            self.spent_s += time.monotonic() - began

    def _sync_folder(self) -> str:
        if self._run is None:
            return ""
        try:
            return str(Path(self._run.settings.sync_dir))
        except Exception:  # a name of theirs may change
            return str(self._folder / "wandb")
