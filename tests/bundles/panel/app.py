import json

import panel as pn

pn.extension()

headers = {name.lower(): value for name, value in pn.state.headers.items()}
viewer = json.loads(headers.get("rstudio-connect-credentials") or "{}").get("user")
token = "yes" if "posit-connect-user-session-token" in headers else "no"

more = pn.widgets.Button(name="Count")
count = pn.bind(lambda clicks: f"count: {clicks}", more.param.clicks)
pn.Column("# hello from panel", f"viewer: {viewer}", f"session token: {token}", more, count).servable()
