"""The Settings tab: a form made of the schema."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from tenuto.web.core import Answer, Call
from tenuto.web.forms import judged, methods_in, project_form, table_of
from tenuto.web.marks import Change


class Values(Change):
    """What the form holds."""

    values: dict[str, str | list[str]]


def settings(call: Call) -> Response:
    place = call.place
    table = place.table()
    text = place.file.read_text(encoding="utf-8-sig")
    return call.page("settings.html.j2", place=place, tab="settings", sections=project_form(table), text=text)


def save(call: Call, body: Values) -> Answer | Response:
    place = call.place
    with place.changing(body.seen) as before:
        table = table_of(body.values, before)
        if wrong := judged(table):
            return JSONResponse({"error": "some settings are not right yet", "fields": wrong}, 400)
        place.save(table, call.studio.roots)
    staying = methods_in(table).keys() - set(body.values.get("regularizers", methods_in(table)))
    why = f"; {', '.join(sorted(staying))} stay, for what is ticked does nothing alone" if staying else ""
    return {"say": f"saved{why}", "reload": True}
