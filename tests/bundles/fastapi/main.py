import json

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

app = FastAPI()


@app.get("/")
def index(request: Request):
    viewer = json.loads(request.headers.get("RStudio-Connect-Credentials") or "{}").get("user")
    token = "yes" if "Posit-Connect-User-Session-Token" in request.headers else "no"
    return {"text": "hello from fastapi", "viewer": viewer, "session_token": token, "url": str(request.url_for("index"))}


@app.get("/there")
def there(request: Request):
    return RedirectResponse(request.url_for("index"))
