import os
import streamlit as st
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy

viewer = ConnectStrategy(client=Client(), user_session_token=st.context.headers["Posit-Connect-User-Session-Token"])
databricks = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer))
rows = databricks.statement_execution.execute_statement("SELECT * FROM sales", os.environ["DATABRICKS_WAREHOUSE_ID"]).result.data_array
st.title(f"Hello {databricks.current_user.me().user_name}")
st.table(rows)
st.button("Ask again")
