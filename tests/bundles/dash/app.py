import json

from dash import Dash, Input, Output, callback, html
from flask import request

app = Dash(__name__)
app.layout = [html.H1("hello from dash"), html.P(id="viewer"), html.P(id="token"), html.Button("Count", id="more"), html.P(id="count")]


@callback(Output("viewer", "children"), Output("token", "children"), Output("count", "children"), Input("more", "n_clicks"))
def update(clicks):
    viewer = json.loads(request.headers.get("RStudio-Connect-Credentials") or "{}").get("user")
    token = "yes" if "Posit-Connect-User-Session-Token" in request.headers else "no"
    return f"viewer: {viewer}", f"session token: {token}", f"count: {clicks or 0}"


if __name__ == "__main__":
    app.run()
