"""The page as one ASGI application: routes in front, the guard before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tenuto.web.core import Studio, action, environment, shown
from tenuto.web.guard import Guard
from tenuto.web.jobs import Jobs
from tenuto.web.login import Login
from tenuto.web.outlook import Watcher
from tenuto.web.roots import Roots
from tenuto.web.story import Logs
from tenuto.web.views import compare, concepts, files, imports, methods, pictures, prior, settings, start, training


def make_app(roots: Roots, *, login: Login | None = None, local: bool = True) -> Starlette:
    """local: it will listen on loopback alone."""
    jobs = Jobs(roots)

    @asynccontextmanager
    async def alive(app: Starlette) -> AsyncIterator[None]:
        jobs.keep_looking()
        yield
        jobs.close()

    app = Starlette(routes=routes(), middleware=[Middleware(Guard, login=login, local=local)], lifespan=alive)
    app.state.studio = Studio(roots, jobs, Watcher(), Logs(), login, environment())
    return app


def routes() -> list[Route | Mount]:
    static = Path(str(resources.files("tenuto.web").joinpath("static")))
    own = "/p/{key}"
    return [
        Mount("/static", StaticFiles(directory=static)),
        Route("/", shown(start.home)),
        Route("/new", shown(start.new)),
        Route("/login", shown(start.login_page)),
        Route("/runs", shown(training.runs)),
        Route("/methods", shown(methods.methods)),
        Route("/methods/board.svg", shown(methods.board)),
        Route("/import", shown(imports.imports)),
        Route("/browse", shown(files.browse)),
        Route("/picture", shown(files.picture)),
        Route("/login", action(start.enter, start.Credentials), methods=["POST"]),
        Route("/logout", action(start.leave, start.Nothing), methods=["POST"]),
        Route("/new", action(start.create, start.NewProject), methods=["POST"]),
        Route("/demo", action(start.demo, start.Nothing), methods=["POST"]),
        Route("/import", action(imports.take, imports.Given), methods=["POST"]),
        Route("/stop", action(training.stop, training.Which), methods=["POST"]),
        Route("/forget", action(training.forget, training.Which), methods=["POST"]),
        Route(f"{own}/pictures", shown(pictures.pictures)),
        Route(f"{own}/prior", shown(prior.prior)),
        Route(f"{own}/training", shown(training.training)),
        Route(f"{own}/compare", shown(compare.compare)),
        Route(f"{own}/settings", shown(settings.settings)),
        Route(f"{own}/live", shown(training.live)),
        Route(f"{own}/report", shown(files.report)),
        Route(f"{own}/lora/{{arm}}/{{seed:int}}", shown(files.lora)),
        Route(f"{own}/edit", action(pictures.edit, pictures.Edit), methods=["POST"]),
        Route(f"{own}/undo", action(pictures.undone, start.Nothing), methods=["POST"]),
        Route(f"{own}/caption", action(pictures.caption, pictures.Caption), methods=["POST"]),
        Route(f"{own}/numbers", action(prior.numbers, prior.Numbers), methods=["POST"]),
        Route(f"{own}/start", action(training.start, training.Start), methods=["POST"]),
        Route(f"{own}/settings", action(settings.save, settings.Values), methods=["POST"]),
        Route(f"{own}/method", action(methods.add_method, methods.Method), methods=["POST"]),
        Route(f"{own}/use", action(compare.use, compare.Use), methods=["POST"]),
        Route(f"{own}/against", action(compare.against, compare.Against), methods=["POST"]),
        Route(f"{own}/concept", action(concepts.add, concepts.NewConcept), methods=["POST"]),
        Route(f"{own}/concept/remove", action(concepts.remove, concepts.OldConcept), methods=["POST"]),
    ]
