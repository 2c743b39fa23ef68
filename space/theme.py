"""The look: one theme for light and dark, with system fonts, so that nothing is fetched from elsewhere."""

import gradio as gr

GREEN = gr.themes.Color(
    c50="#eefbf5", c100="#d5f5e5", c200="#aeead0", c300="#78d8b4", c400="#40bf93", c500="#1ba379", c600="#0f8462", c700="#0d6a51",
    c800="#0d5441", c900="#0c4537", c950="#052720", name="leaf",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """The theme. Buttons are dark enough for white text at a contrast of 4.5 and more."""
    return gr.themes.Default(
        primary_hue=GREEN,
        neutral_hue="slate",
        radius_size="md",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
