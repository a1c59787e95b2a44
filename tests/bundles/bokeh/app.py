import json

from bokeh.io import curdoc
from bokeh.layouts import column
from bokeh.models import Button, Div

headers = {name.lower(): value for name, value in curdoc().session_context.request.headers.items()}
viewer = json.loads(headers.get("rstudio-connect-credentials") or "{}").get("user")
token = "yes" if "posit-connect-user-session-token" in headers else "no"

count = Div(text="count: 0")
more = Button(label="Count")
more.on_click(lambda: count.update(text=f"count: {int(count.text.split()[-1]) + 1}"))
curdoc().add_root(column(Div(text=f"<h1>hello from bokeh</h1><p>viewer: {viewer}</p><p>session token: {token}</p>"), more, count))
curdoc().title = "bokeh"
