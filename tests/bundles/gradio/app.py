import json

import gradio as gr


def hello(request: gr.Request):
    viewer = json.loads(request.headers.get("RStudio-Connect-Credentials") or "{}").get("user")
    token = "yes" if "Posit-Connect-User-Session-Token" in request.headers else "no"
    return f"viewer: {viewer}", f"session token: {token}"


def add(count):
    return count + 1, f"count: {count + 1}"


with gr.Blocks(title="gradio") as demo:
    gr.Markdown("# hello from gradio")
    viewer, token, count = gr.Markdown(), gr.Markdown(), gr.Markdown("count: 0")
    number = gr.State(0)
    gr.Button("Count").click(add, number, [number, count])
    demo.load(hello, outputs=[viewer, token])

demo.launch()
