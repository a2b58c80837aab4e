"""The catalogue of methods, and how they stood against each other on the leaderboard that ships."""

from __future__ import annotations

from functools import lru_cache

from starlette.responses import Response

from tenuto.evaluation.board import Board, plot, shipped_board
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.explained import explain
from tenuto.web.core import Answer, Call
from tenuto.web.forms import methods_in, name_methods
from tenuto.web.places import places
from tenuto.words import Settings, TenutoError

DRAWING_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"


class Method(Settings):
    """A method to add to a project."""

    name: str


def methods(call: Call) -> Response:
    own = {name: explain(method) for name, method in REGULARIZERS.items()}
    return call.page("methods.html.j2", methods=own, places=places(call.studio.roots), board=shipped_board())


def board(call: Call) -> Response:
    """The leaderboard's plot."""
    found = shipped_board()
    if found is None:
        raise TenutoError("leaderboard: this installation carries none yet; make leaderboard measures one")
    headers = {"Content-Security-Policy": DRAWING_POLICY}
    return Response(_drawn(found.model_dump_json()), media_type="image/svg+xml", headers=headers)


@lru_cache(maxsize=1)
def _drawn(data: str) -> str:
    return plot(Board.model_validate_json(data))


def add_method(call: Call, body: Method) -> Answer:
    place = call.place
    if body.name not in REGULARIZERS:
        raise TenutoError(f"{body.name[:40]}: no such method")
    with place.changing() as table:
        own = methods_in(table)
        name_methods(table, own | {body.name: own.get(body.name, {})}, dict(table))
        place.save(table, call.studio.roots)
    return {"say": f"{place.key} now uses {body.name}", "go": f"/p/{place.key}/settings#regularizers.{body.name}"}
