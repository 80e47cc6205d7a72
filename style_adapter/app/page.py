"""The page: text in, a slider a style, candidates side by side, the words that changed, and where the mixture lies."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from ..inference import WRITERS, StylePipeline
from ..model import StyleMap, style_map
from ..plots import map_figure
from ..style import OFF, Style
from .changes import cards, notice

SLIDERS = 8  # styles that get one; the others are written in the mixture
REACH = 1.5  # of a slider, both ways
CSS = """
.cards { display: flex; flex-wrap: wrap; gap: 0.8rem; }
.cards article { flex: 1 1 16rem; border: 1px solid #8884; border-radius: 0.5rem; padding: 0.6rem 0.9rem; }
.cards .text { font-size: 1.05rem; line-height: 1.6; margin: 0 0 0.4rem; white-space: pre-wrap; }
.cards del { opacity: 0.5; }
.cards ins { text-decoration: none; background: #f5c54266; border-radius: 0.2rem; padding: 0 0.15rem; }
.notice { color: #b3261e; }
"""


def build_page(pipe: StylePipeline, *, title: str = "style_adapter") -> Any:
    """The page as `gradio.Blocks`, to be launched or mounted.

    Sliders write the mixture, which may also be typed; a text is rewritten when a slider is let go, when Enter is
    pressed, and by the button; one after another, whoever asks. Nothing that a user types is taken for markup.

    Args:
        pipe: The adapter.
        title: Of the page.

    Raises:
        ImportError: gradio is not installed.
        ValueError: An adapter that sorts texts: there is nothing to see beside the class.
    """
    if pipe.task not in WRITERS:
        raise ValueError(f"task={pipe.task!r} must be transfer or generation for a page; call the pipeline instead")
    gradio = _gradio()
    names, page = list(pipe.styles)[:SLIDERS], _Page(pipe)
    first = pipe.styles.usual
    with gradio.Blocks(title=title, analytics_enabled=False) as blocks:
        gradio.Markdown(f"# {_plain(title)}")
        with gradio.Row():
            with gradio.Column(scale=1):
                text = gradio.Textbox(label="Text", lines=3, placeholder="Write something", elem_id="text")
                sliders = [
                    gradio.Slider(-REACH, REACH, float(name == first), step=0.05, label=name, elem_id=f"style-{i}")
                    for i, name in enumerate(names)
                ]
                mixture = gradio.Textbox(
                    first, label="Mixture", elem_id="mixture", info="such as blend(a, b), a - b, or off"
                )
                with gradio.Accordion("More", open=False):
                    strength = gradio.Slider(0, 2, 1, step=0.05, label="Strength", elem_id="strength")
                    diversity = gradio.Slider(0, 2, 1, step=0.05, label="Diversity", elem_id="diversity")
                    count = gradio.Slider(1, 8, 3, step=1, label="Candidates", elem_id="count")
                    seed = gradio.Number(0, precision=0, label="Seed", elem_id="seed")
                button = gradio.Button("Rewrite" if page.rewrites else "Write", variant="primary", elem_id="go")
            with gradio.Column(scale=2):
                shown = gradio.HTML(elem_id="candidates")
                place = gradio.Plot(page.map_of(first), label="Styles by their gates", elem_id="map")
        asked, answered = [text, mixture, strength, diversity, count, seed], [shown, place]
        for slider in sliders:
            slider.release(_mixture_of(names), sliders, mixture, show_progress="hidden").then(
                page.answer, asked, answered, concurrency_id="model"
            )
        mixture.submit(_levels_of(pipe, names), [mixture, *sliders], sliders, show_progress="hidden")
        for event in (text.submit, mixture.submit, button.click, strength.release, diversity.release, count.release):
            event(page.answer, asked, answered, concurrency_id="model")
    return blocks


def serve_page(pipe: StylePipeline, *, host: str = "127.0.0.1", port: int = 7860, title: str = "style_adapter") -> Any:
    """Launches the page and returns its `gradio.Blocks` at once; `close()` ends it. Port 0 is any that is free.

    Raises:
        ImportError: gradio is not installed.
        OSError: The port is taken.
    """
    theme = _gradio().themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none from elsewhere
    page = build_page(pipe, title=title)
    page.launch(
        server_name=host,
        server_port=port or _free_port(host),
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        theme=theme,
        css=CSS,
        footer_links=[],
    )
    return page


def _free_port(host: str) -> int:
    """A port that nobody listens on: gradio takes 0 for a port."""
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])


class _Page:
    """What the page answers."""

    def __init__(self, pipe: StylePipeline) -> None:
        """With the map of the styles, made once."""
        self.pipe, self.rewrites = pipe, pipe.task == "transfer"
        self.map: StyleMap = style_map(pipe.model)

    def answer(
        self, text: str, mixture: str, strength: float, diversity: float, count: float, seed: float | None
    ) -> tuple[str, Any]:
        """The candidates as HTML, and the map with the mixture on it; a mistake in one sentence."""
        try:
            style = self.pipe.styles.parse(mixture.strip() or OFF)
            if self.rewrites and not text.strip():
                return "", self.map_of(style, strength)
            (choices,) = self.pipe.candidates(
                [text], style, n=int(count), strength=strength, diversity=diversity, seed=int(seed or 0)
            )
        except (ValueError, TypeError) as error:
            return notice(str(error)), self.map_of(OFF)
        return cards(text, choices, rewrites=self.rewrites), self.map_of(style, strength)

    def map_of(self, style: Style | str, strength: float = 1.0) -> Any:
        """The figure of all styles, and of this one times its strength."""
        here = strength * self.pipe.styles.parse(style)
        return map_figure(self.map.points, here=self.map.place(here), label=str(here))


def _mixture_of(names: Sequence[str]) -> Callable[..., str]:
    """Sliders -> the mixture in words."""
    return lambda *levels: str(Style({n: level for n, level in zip(names, levels, strict=True) if level}))


def _levels_of(pipe: StylePipeline, names: Sequence[str]) -> Callable[..., list[float]]:
    """The mixture in words -> sliders; as they were where it cannot be read."""

    def levels(mixture: str, *before: float) -> list[float]:
        try:
            weights = pipe.styles.parse(mixture.strip() or OFF).weights
        except ValueError:
            return list(before)
        return [max(-REACH, min(REACH, float(weights.get(name, 0.0)))) for name in names]

    return levels


def _plain(text: str) -> str:
    """A title as Markdown that is text alone."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>()#+-.!|" else sign for sign in text)


def _gradio() -> Any:
    """gradio.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the page needs gradio: pip install 'style_adapter[app]'") from error
    return gradio
