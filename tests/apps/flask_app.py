import os
import flask
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy

app = flask.Flask(__name__)

@app.get("/")
def hello():
    viewer = ConnectStrategy(client=Client(), user_session_token=flask.request.headers["Posit-Connect-User-Session-Token"])
    databricks = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer))
    rows = databricks.statement_execution.execute_statement("SELECT * FROM sales", os.environ["DATABRICKS_WAREHOUSE_ID"]).result.data_array
    return f"<h1>Hello {databricks.current_user.me().user_name}</h1><pre>{rows}</pre>"
