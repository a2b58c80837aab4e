"""What every view is given, and how views become routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from tenuto.evaluation.board import short
from tenuto.project.settings import Project
from tenuto.project.wording import explained
from tenuto.web.jobs import Jobs
from tenuto.web.login import Login
from tenuto.web.marks import mark_of
from tenuto.web.outlook import Watcher
from tenuto.web.places import Place, place_of
from tenuto.web.roots import Roots
from tenuto.web.story import Logs, ago, clock
from tenuto.words import TenutoError

TABS = (
    ("pictures", "Pictures"),
    ("prior", "Prior"),
    ("training", "Training"),
    ("compare", "Compare"),
    ("settings", "Settings"),
)
"""Of a project, in the order of the work."""
LONGEST = 400
"""Characters that are said of what was sent wrongly."""
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Studio:
    """The page's own state; everything else lies on disk."""

    roots: Roots
    jobs: Jobs
    watcher: Watcher
    logs: Logs
    login: Login | None
    templates: Environment


@dataclass(frozen=True)
class Call:
    """One request as a view sees it."""

    studio: Studio
    request: Request

    @property
    def place(self) -> Place:
        return self._opened[0]

    @property
    def seen(self) -> str:
        """The mark of the project file, taken before it is read: what is written in between is noticed, too."""
        return self._opened[1]

    @property
    def project(self) -> Project:
        return self._opened[2]

    @cached_property
    def _opened(self) -> tuple[Place, str, Project]:
        """The project of this address. Raises TenutoError, also where it names what lies outside the roots."""
        place = place_of(self.studio.roots, self.request.path_params["key"])
        return place, mark_of(place.file), place.load(self.studio.roots)

    def asked(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default)

    def page(self, template: str, **values: Any) -> Response:
        return _rendered(self, template, 200, values)


View = Callable[[Call], Response]
Body = TypeVar("Body", bound=BaseModel)


def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("tenuto.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"clock": clock, "ago": ago, "picture": picture_url, "short": short}
    return made


def picture_url(path: object, size: int = 320) -> str:
    return f"/picture?path={quote(str(path))}&size={size}"


def shown(view: View) -> Callable[[Request], Any]:
    """A view as a route for GET. What the user can mend becomes a page that says so."""

    async def endpoint(request: Request) -> Response:
        call = Call(request.app.state.studio, request)
        try:
            return await run_in_threadpool(view, call)
        except TenutoError as error:
            if "text/html" not in request.headers.get("accept", ""):
                return JSONResponse({"error": str(error)}, 400)
            return await run_in_threadpool(_rendered, call, "error.html.j2", 400, {"text": str(error)})

    return endpoint


def action(view: Callable[[Call, Body], Answer | Response], body: type[Body]) -> Callable[[Request], Any]:
    """A change as a route for POST: JSON in, checked against `body`, JSON out; an error is one line."""

    async def endpoint(request: Request) -> Response:
        call = Call(request.app.state.studio, request)
        try:
            answer = await run_in_threadpool(view, call, _read(await request.body(), body))
        except TenutoError as error:
            return JSONResponse({"error": str(error)}, 400)
        return answer if isinstance(answer, Response) else JSONResponse(dict(answer))

    return endpoint


def _read(sent: bytes, body: type[Body]) -> Body:
    """What was sent, as these settings. Raises TenutoError."""
    try:
        data = json.loads(sent)
        json.dumps(data, ensure_ascii=False).encode()  # half a character, as JSON can escape it, goes into no file
        return body.model_validate(data)
    except ValidationError as error:
        raise TenutoError(explained(error, body).removeprefix(": ")[:LONGEST]) from error
    except (ValueError, RecursionError) as error:
        raise TenutoError("not readable as JSON") from error


def _rendered(call: Call, template: str, status: int, values: Mapping[str, Any]) -> Response:
    studio = call.studio
    place = values.get("place")
    common = {
        "tabs": TABS,
        "path": call.request.url.path,
        "running": studio.jobs.current(),
        "logged_in": studio.login is not None,
        "job": studio.jobs.of(place.key) if place is not None else None,
        "seen": call.seen if place is not None else "",
    }
    text = studio.templates.get_template(template).render({"place": None, "tab": "", **common, **values})
    return HTMLResponse(text, status)
