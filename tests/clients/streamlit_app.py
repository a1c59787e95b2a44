"""Streamlit behind the portal: reads the header of its WebSocket handshake and queries as the viewer."""
import streamlit as st
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy
import os

token = st.context.headers["Posit-Connect-User-Session-Token"]
strategy = ConnectStrategy(client=Client(), user_session_token=token)
me = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=strategy)).current_user.me()
st.title(f"Hello {me.user_name}")
if st.button("Ask again"):
    st.write(f"Still {WorkspaceClient(config=Config(host=os.environ['DATABRICKS_HOST'], credentials_strategy=strategy)).current_user.me().user_name}")
