"""Starts one deployed app in the current directory. The portal runs it with the bundle's own Python:

    python launch.py wsgi|dash|asgi|gradio ENTRYPOINT PORT PREFIX

ENTRYPOINT is `module` or `module:object`, as in the bundle's manifest. The app listens on 127.0.0.1:PORT.
PREFIX is where browsers see the app, with both slashes: `/content/<guid>/`, or `/` if it has a host of its own.
The proxy removes it from the paths of requests, and is the only one that can reach the port, so its
`X-Forwarded-*` headers are believed. Packages in the folders of LAUNCH_PATH (waitress, uvicorn) are used where
the bundle has none. Exit code 3: the module, the object or a package is missing, as the last line on stderr says.
"""
import importlib
import inspect
import os
import runpy
import sys
import traceback

NAMES = ("app", "application", "create_app", "make_app")


def fail(message):
    print(f"Could not start the app: {message}, then deploy again.", file=sys.stderr, flush=True)
    sys.exit(3)


def split(entrypoint):
    """The module, its file, and the object ("" if none is named); `folder/app.py` names a module, too."""
    module, _, name = entrypoint.partition(":")
    module = module.removesuffix(".py").replace("/", ".")
    return module, module.replace(".", "/") + ".py", name


def no_file(file):
    fail(f"the bundle has no file '{file}'. Name the file with the app in the entrypoint (rsconnect's --entrypoint)")


def no_package(error, file):
    traceback.print_exception(error)
    fail(f"'{file}' needs the Python module '{error.name}'. Add its package to requirements.txt, or its file to the bundle")


def load(entrypoint):
    """Imports the module and returns the app that the entrypoint names."""
    module, file, name = split(entrypoint)
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Shiny Express's entrypoint is a module of the package shiny; other modules are files of the bundle.
        own = error.name and f"{module}.".startswith(f"{error.name}.") and not module.startswith("shiny.")
        no_file(file) if own else no_package(error, file)
    # Shiny Express makes its objects when they are asked for. A name with () is a factory's, as Gunicorn has it.
    for candidate in [name.removesuffix("()")] if name else NAMES:
        app = getattr(loaded, candidate, None)
        if app is not None:
            return app() if name.endswith("()") or candidate in ("create_app", "make_app") else app
    wanted = f"'{name}'" if name else "any of " + ", ".join(f"'{each}'" for each in NAMES)
    fail(f"'{file}' doesn't define {wanted}. Name the object with the app in the entrypoint (--entrypoint {module}:OBJECT)")


def is_asgi(app):
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))


def serve_wsgi(app, port, prefix):
    import waitress

    # `url_prefix` becomes SCRIPT_NAME, from which frameworks make their links and redirects.
    waitress.serve(
        app,
        host="127.0.0.1",
        port=port,
        url_prefix=prefix.rstrip("/"),
        threads=8,
        ident=None,
        trusted_proxy="127.0.0.1",
        trusted_proxy_headers={"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"},
    )


def serve_asgi(app, port, prefix):
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port, root_path=prefix.rstrip("/"), forwarded_allow_ips="*", access_log=False)


def serve_gradio(entrypoint, port, prefix):
    """Runs the file as `python app.py` would, since it calls `launch` itself, which then gets our port and prefix."""
    _, file, name = split(entrypoint)
    if not os.path.isfile(file):
        no_file(file)
    try:
        import gradio

        launch = gradio.Blocks.launch
        ours = {"server_name": "127.0.0.1", "server_port": port, "root_path": prefix.rstrip("/"), "share": False, "inbrowser": False}

        def launch_here(*args, **kwargs):
            given = inspect.signature(launch).bind(*args, **kwargs)
            given.arguments.update(ours)
            return launch(*given.args, **given.kwargs)

        gradio.Blocks.launch = launch_here
        left = runpy.run_path(file, run_name="__main__")
    except ModuleNotFoundError as error:
        no_package(error, file)
    # The file ended without waiting in `launch`.
    demos = [each for each in (left.get(name), left.get("demo"), *left.values()) if isinstance(each, gradio.Blocks)]
    if not demos:
        fail(f"'{file}' makes no Gradio app. End it with demo.launch()")
    demos[0].block_thread() if getattr(demos[0], "is_running", False) else demos[0].launch()


def main(kind, entrypoint, port, prefix):
    # The bundle's files come first, instead of this script's folder; our own packages come last.
    sys.path = [os.getcwd(), *(path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__)))]
    sys.path += filter(None, os.environ.get("LAUNCH_PATH", "").split(os.pathsep))
    if kind == "gradio":
        return serve_gradio(entrypoint, port, prefix)
    # Flask and Dash then ignore an `app.run()` outside of `if __name__ == "__main__"`, which would never return.
    os.environ["FLASK_RUN_FROM_CLI"] = "true"
    if kind == "dash":
        # Browsers ask below the prefix; the routes are without it. `Dash(__name__)` reads both.
        os.environ["DASH_REQUESTS_PATHNAME_PREFIX"] = prefix
        os.environ["DASH_ROUTES_PATHNAME_PREFIX"] = "/"
    app = load(entrypoint)
    if kind == "dash":
        app = getattr(app, "server", app)
    (serve_asgi if kind == "asgi" or is_asgi(app) else serve_wsgi)(app, port, prefix)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in ("wsgi", "dash", "asgi", "gradio"):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
