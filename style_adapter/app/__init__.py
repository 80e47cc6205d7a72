"""The playground: a page in the browser to try an adapter, with a slider a style."""

from .page import build_page, serve_page

__all__ = ["build_page", "serve_page"]
