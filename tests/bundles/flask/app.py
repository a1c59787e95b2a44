import json

from flask import Flask, redirect, request, url_for

app = Flask(__name__)


@app.get("/")
def index():
    viewer = json.loads(request.headers.get("RStudio-Connect-Credentials") or "{}").get("user")
    token = "yes" if "Posit-Connect-User-Session-Token" in request.headers else "no"
    return f"""<!doctype html><html lang="en"><title>flask</title>
<link rel="stylesheet" href="{url_for("static", filename="style.css")}">
<h1>hello from flask</h1><p>viewer: {viewer}</p><p>session token: {token}</p>
<p><a href="{url_for("there")}">there</a></p></html>"""


@app.get("/there")
def there():
    return redirect(url_for("index"))
