"""The Space: a page and an API that start, watch, show and publish runs of hfsafemerge. Only here is gradio imported."""
