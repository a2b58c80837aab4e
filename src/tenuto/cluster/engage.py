"""From `--on` to a `Runner`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tenuto.cluster.away import Terms
from tenuto.cluster.crew import Crew
from tenuto.cluster.head import reached
from tenuto.cluster.machines import machines, share_of
from tenuto.cluster.sameness import Shared, check
from tenuto.cluster.settings import ClusterSettings
from tenuto.events import Listener, note
from tenuto.files import cache_home
from tenuto.project.paths import paths_of
from tenuto.project.settings import Project

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
STORE = "prior.store"


def engage(settings: ClusterSettings, projects: Sequence[Project], folder: Path, listener: Listener) -> Crew:
    """Whoever runs the tasks of these projects, whose results go into the folder.

    Every machine that has room for a task is asked whether it is fit for them. Raises TenutoError.
    """
    with reached(settings.on):
        found = machines()
        share = share_of(settings, found, {own.base.device for own in projects})
        able = [machine for machine in found if share.on(machine)]
        check(able, _inputs(projects), _shared(projects, folder), listener)
        slots = sum(share.on(machine) for machine in able)
        note(listener, f"machines: {len(able)}; tasks at once: {slots}, each on {share}")
        home = {"TENUTO_HOME": str(cache_home().absolute())} if _shares_home(projects) else {}
        terms = Terms(folder.absolute() / "claims", share.cpus, home | ({} if share.gpus else NO_GPU))
        return Crew(settings.on, share, terms, settings.retries)


def _shares_home(projects: Sequence[Project]) -> bool:
    """Whether some prior set lies where all projects of this user share it."""
    return any(own.prior.store is None for own in projects)


def _inputs(projects: Sequence[Project]) -> list[tuple[str, Path]]:
    """(setting, path) of what the projects read."""
    named = {path: setting for own in projects for setting, path in paths_of(own) if not setting.endswith(STORE)}
    return [(setting, path) for path, setting in named.items()]


def _shared(projects: Sequence[Project], folder: Path) -> list[Shared]:
    """What the machines write for each other."""
    shared = [Shared(folder, "the results", "name one on a disk that all machines share with --out")]
    shared += [
        Shared(Path(store), STORE, f"name one on a disk that all machines share as {STORE}")
        for store in dict.fromkeys(own.prior.store for own in projects if own.prior.store)
    ]
    if _shares_home(projects):
        remedy = f"let TENUTO_HOME, or {STORE}, name one on a disk that all machines share"
        shared.append(Shared(cache_home(), "prior sets", remedy))
    return shared
