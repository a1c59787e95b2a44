import json

import streamlit as st

viewer = json.loads(st.context.headers.get("RStudio-Connect-Credentials") or "{}").get("user")
token = "yes" if "Posit-Connect-User-Session-Token" in st.context.headers else "no"

st.title("hello from streamlit")
st.write(f"viewer: {viewer}")
st.write(f"session token: {token}")
if st.button("Count"):
    st.session_state["count"] = st.session_state.get("count", 0) + 1
st.write(f"count: {st.session_state.get('count', 0)}")
