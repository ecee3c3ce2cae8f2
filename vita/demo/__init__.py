"""The web demo: one page to talk, type, transcribe and speak, over a Gradio server."""
