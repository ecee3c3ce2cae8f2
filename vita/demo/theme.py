"""Colours and shapes Gradio's own components take; everything else is in ``static/style.css``."""

from __future__ import annotations

import gradio as gr

SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """The theme; only fonts the visitor's system has, so that no font is asked from anywhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="#f5f6fa",
        body_background_fill_dark="#0d1018",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#161a25",
        background_fill_secondary="#f5f6fa",
        background_fill_secondary_dark="#11141d",
        border_color_primary="#dfe2ec",
        border_color_primary_dark="#2a3040",
        block_border_width="1px",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161a25",
        input_background_fill="#ffffff",
        input_background_fill_dark="#11141d",
        body_text_color="#1b2030",
        body_text_color_dark="#e8eaf2",
        body_text_color_subdued="#586078",
        body_text_color_subdued_dark="#9aa3ba",
        button_primary_background_fill="#4338ca",
        button_primary_background_fill_hover="#3730a3",
        button_primary_background_fill_dark="#6366f1",
        button_primary_background_fill_hover_dark="#818cf8",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )
