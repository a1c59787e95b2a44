import os
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from fastapi import FastAPI, Header
from fastapi.responses import HTMLResponse
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy

app = FastAPI()

@app.get("/", response_class=HTMLResponse)
def hello(posit_connect_user_session_token: str = Header()):
    viewer = ConnectStrategy(client=Client(), user_session_token=posit_connect_user_session_token)
    databricks = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer))
    rows = databricks.statement_execution.execute_statement("SELECT * FROM sales", os.environ["DATABRICKS_WAREHOUSE_ID"]).result.data_array
    return f"<h1>Hello {databricks.current_user.me().user_name}</h1><pre>{rows}</pre>"
