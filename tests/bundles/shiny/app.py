from shiny.express import input, render, session, ui

ui.h1("hello from shiny")
ui.input_action_button("more", "Count")


@render.text
def viewer():
    return f"viewer: {session.user}"


@render.text
def token():
    return f"session token: {'yes' if 'Posit-Connect-User-Session-Token' in session.http_conn.headers else 'no'}"


@render.text
def count():
    return f"count: {input.more()}"
