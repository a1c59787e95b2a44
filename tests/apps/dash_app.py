import os
import flask
from dash import Dash, html
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy

def layout():
    viewer = ConnectStrategy(client=Client(), user_session_token=flask.request.headers["Posit-Connect-User-Session-Token"])
    databricks = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer))
    rows = databricks.statement_execution.execute_statement("SELECT * FROM sales", os.environ["DATABRICKS_WAREHOUSE_ID"]).result.data_array
    return [html.H1(f"Hello {databricks.current_user.me().user_name}"), html.Table([html.Tr([html.Td(cell) for cell in row]) for row in rows])]

app = Dash(requests_pathname_prefix=f"/content/{os.environ['CONNECT_CONTENT_GUID']}/", routes_pathname_prefix="/")
app.layout = lambda: layout() if flask.has_request_context() else html.Div()
app.run(port=int(os.environ["PORT"]))
