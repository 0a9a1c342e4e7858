"""A load report and its verdict as JSON, HTML, Markdown and lines for a terminal."""
