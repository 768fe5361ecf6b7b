"""A measured table in every form: terminal, Markdown, LaTeX, CSV, JSON, pictures, one HTML page."""
