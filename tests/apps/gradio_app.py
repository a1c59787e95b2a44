import os
import gradio as gr
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy

def hello(request: gr.Request):
    viewer = ConnectStrategy(client=Client(), user_session_token=request.headers["Posit-Connect-User-Session-Token"])
    databricks = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer))
    rows = databricks.statement_execution.execute_statement("SELECT * FROM sales", os.environ["DATABRICKS_WAREHOUSE_ID"]).result.data_array
    return f"# Hello {databricks.current_user.me().user_name}\n{rows}"

with gr.Blocks() as app:
    text = gr.Markdown()
    app.load(hello, outputs=text)

app.launch(server_port=int(os.environ["PORT"]), root_path=f"/content/{os.environ['CONNECT_CONTENT_GUID']}")
