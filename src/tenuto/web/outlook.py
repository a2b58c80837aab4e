"""The plan of a project as the page shows it: made without the base's weights, kept until a file changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenuto.families.base import Geometry
from tenuto.families.prediction import Wish
from tenuto.families.survey import survey
from tenuto.prior.audit import AuditReport
from tenuto.project.paths import paths_of
from tenuto.project.settings import Project
from tenuto.work.prepare import Outlook, Pictures, audited, look_ahead, read_pictures

T = TypeVar("T")
KEPT = 4


@dataclass(frozen=True)
class Seen:
    """A project looked at."""

    outlook: Outlook
    report: AuditReport


class Watcher:
    """Reads what a project names once, and again when a file of it has changed."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[Any, Pictures] = OrderedDict()
        self._seen: OrderedDict[Any, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, project: Project) -> Seen:
        """Raises TenutoError for what `tenuto audit` would refuse."""
        with self._lock:
            base = project.base
            geometry = survey(base.model, base.vae, Wish(base.prediction, base.zero_terminal_snr))
            read = (path for setting, path in paths_of(project) if not setting.endswith(".store"))
            key = (geometry, project.model_dump_json(), tuple(_stamps(read)))
            if key not in self._seen:
                outlook = look_ahead(project, geometry, self._read(project, geometry))
                self._seen[key] = Seen(outlook, audited(outlook))
            return _kept(self._seen, key)

    def _read(self, project: Project, geometry: Geometry) -> Pictures:
        folders = [*(own.images for own in project.concepts), *(own.path for own in project.prior.folders)]
        folders += [own.masks for own in project.concepts if own.masks]
        settings = (project.data.model_dump_json(), project.prior.model_dump_json(include={"folders"}))
        concepts = tuple((own.name, own.images, own.masks, own.repeats) for own in project.concepts)
        key = (geometry, settings, concepts, tuple(_stamps(map(Path, folders))))
        if key not in self._pictures:
            self._pictures[key] = read_pictures(project, geometry)
        return _kept(self._pictures, key)


def _kept(memory: OrderedDict[Any, T], key: Any) -> T:
    memory.move_to_end(key)
    while len(memory) > KEPT:
        memory.popitem(last=False)
    return memory[key]


def _stamps(paths: Iterable[Path]) -> Iterable[tuple[str, int, int]]:
    """What tells that a file, or one in a folder, is another than before."""
    for path in paths:
        with suppress(OSError):
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                with suppress(OSError):
                    stat = file.stat()
                    yield str(file), stat.st_mtime_ns, stat.st_size
