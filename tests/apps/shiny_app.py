import os
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy
from shiny import App, render, ui

def server(input, output, session):
    @render.ui
    def hello():
        viewer = ConnectStrategy(client=Client(), user_session_token=session.http_conn.headers["Posit-Connect-User-Session-Token"])
        databricks = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer))
        rows = databricks.statement_execution.execute_statement("SELECT * FROM sales", os.environ["DATABRICKS_WAREHOUSE_ID"]).result.data_array
        return ui.h1(f"Hello {databricks.current_user.me().user_name}"), ui.pre("\n".join(map(str, rows)))

app = App(ui.page_fluid(ui.output_ui("hello")), server)
