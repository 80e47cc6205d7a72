"""The server through HTTP, asked by OpenAI's own client, against the model asked one text at a time."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
import uvicorn
from training_fixtures import adapted, byte_tokenizer, gpt2, llama, llama_classifier, randomised, save_backbone, t5

from style_adapter import StylePipeline, pipeline, write
from style_adapter.cli import main
from style_adapter.data import prompt_ids
from style_adapter.inference import prompt_of
from style_adapter.server import ServerOptions, build_app
from style_adapter.server.texts import GrowingText

STYLES = [f"s{i}" for i in range(8)]
LONG = 4096  # tokens that the model can read: time enough to watch a text being written
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
STARTED = 300.0  # seconds that a server may take to start


@dataclass
class Served:
    """A running server, and the model that it serves."""

    url: str
    pipe: StylePipeline
    client: openai.OpenAI

    def complete(self, style: str = "s0", text: Any = "abc", **options: Any) -> Any:
        """An answer of `/v1/completions`; fields that OpenAI's client does not know go along too."""
        return self.client.completions.create(model=style, prompt=text, **extra(options))

    def chat(self, style: str, turns: Any, **options: Any) -> Any:
        """An answer of `/v1/chat/completions`."""
        turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
        return self.client.chat.completions.create(model=style, messages=turns, **extra(options))

    def post(self, body: Any, route: str = "completions", **options: Any) -> httpx.Response:
        """The bare answer to a bare body."""
        content = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return httpx.post(f"{self.url}/v1/{route}", content=content, timeout=60, **options)

    def metric(self, name: str, **labels: str) -> float:
        """One number of `/metrics`; 0 where there is none yet."""
        page = httpx.get(f"{self.url}/metrics").text
        shown = "".join(rf'(?=[^}}]*{label}="{re.escape(value)}")' for label, value in labels.items())
        found = re.search(rf"^style_adapter_{name}(?:\{{{shown}[^}}]*\}})? (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def alone(self, text: str, style: Any = "s0", most: int | None = None, **options: Any) -> tuple[str, int, str]:
        """(text, tokens, reason) of one greedy rewrite, by `generate` itself."""
        model, tokenizer = self.pipe.model, self.pipe.tokenizer
        (ids,) = prompt_ids(tokenizer, prompt_of(model), [text])
        most = most or len(ids) * 3 // 2 + 8
        with torch.no_grad():
            row = model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                styles=[self.pipe.styles.parse(style)],
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **options,
            )[0]
        new = row[1 if model.config.is_encoder_decoder else len(ids) :].tolist()
        ended = tokenizer.eos_token_id in new
        tokens = new.index(tokenizer.eos_token_id) + 1 if ended else len(new)
        text = tokenizer.decode(new[: tokens - ended], skip_special_tokens=True).strip()
        return text, tokens, "stop" if ended else "length"


def extra(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that OpenAI's client has no name for, put where it takes them."""
    own = {name: options.pop(name) for name in ("strength", "diversity", "top_k") if name in options}
    return options | {"extra_body": own | options.pop("extra_body", {})}


@contextmanager
def serving(pipe: StylePipeline, **options: Any) -> Iterator[Served]:
    """A server in a thread of this process, at a free port."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(pipe, ServerOptions(**options), name="toy"), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    key = options.get("api_key") or "none"
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)
    try:
        until(lambda: server.started)
        yield Served(url, pipe, client)
    finally:
        client.close()
        server.should_exit = True
        thread.join()


def until(holds: Any) -> None:
    """Waits until something holds."""
    end = time.monotonic() + STARTED
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def rewriter(**options: Any) -> StylePipeline:
    """A random adapter of eight styles, whose texts depend on everything."""
    model = randomised(adapted(llama(max_position_embeddings=LONG), styles=STYLES, **options)).eval()
    return pipeline(model, byte_tokenizer())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """An adapter that rewrites."""
    with serving(rewriter(), max_new_tokens=LONG) as found:
        yield found


@pytest.fixture(scope="module")
def writing() -> Iterator[Served]:
    """An adapter with noise that writes from prompts and conversations."""
    model, tokenizer = randomised(adapted(llama(), styles=STYLES, noise_dim=2)).eval(), byte_tokenizer()
    tokenizer.chat_template = CHAT
    with serving(pipeline(model, tokenizer, task="generation"), batch_wait_ms=100.0) as found:
        yield found


def endless(served: Served, tokens: int) -> str:
    """A style whose text does not end within so many tokens."""
    return next(style for style in STYLES if served.alone("abc", style, tokens)[2] == "length")


# Models


def test_each_style_is_a_model_and_so_is_a_mixture(served):
    found = served.client.models.list().data
    assert [(model.id, model.object, model.owned_by) for model in found] == [(name, "model", "toy") for name in STYLES]
    assert served.client.models.retrieve("s3").id == "s3"
    assert served.client.models.retrieve("0.7*s1 + 0.3*s2").id == "0.7*s1 + 0.3*s2"
    with pytest.raises(openai.NotFoundError, match="model='laud' must be one of the adapter's styles: s0, s1"):
        served.client.models.retrieve("laud")


# Rewrites


@pytest.mark.parametrize("style", ["s1", "0.7*s1+0.3*s2", "s1 - 0.5*s2", "blend(7*s1, 3*s2)", "off"])
def test_a_completion_is_the_greedy_rewrite_with_its_tokens_counted(served, style):
    for text in ("abc", "日b and some more"):
        expected, tokens, reason = served.alone(text, style)
        answer = served.complete(style, text)
        (choice,) = answer.choices
        assert (choice.text, choice.finish_reason, choice.index) == (expected, reason, 0)
        read = len(byte_tokenizer()(f"{text}\n")["input_ids"])
        usage = answer.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (read, tokens, read + tokens)
        assert (answer.object, answer.model) == ("text_completion", style)
        assert choice.text == served.pipe(text, style)


def test_a_text_ends_at_its_bound_or_at_the_end_of_text_token(served):
    texts = {style: served.alone("abc", style, 40)[0] for style in STYLES[:4]}
    style, end = next((s, c) for s, text in texts.items() for c in text[2:] if c.isascii() and c not in text[:2] + " ")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = end  # a token that the model writes
    with serving(pipeline(served.pipe.model, tokenizer)) as ending:
        for most, reason in ((1, "length"), (40, "stop")):
            answer = ending.complete(style, max_tokens=most)
            found = answer.choices[0]
            assert (found.text, answer.usage.completion_tokens, found.finish_reason) == ending.alone("abc", style, most)
            assert found.finish_reason == reason
        assert found.text == texts[style][: texts[style].index(end)].strip()


def test_a_chat_rewrites_the_last_message_of_the_user(served):
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "xy"},
        {"role": "assistant", "content": "zz"},
        {"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]},
    ]
    answer = served.chat("s2", turns, max_completion_tokens=20)
    expected, tokens, reason = served.alone("abc", "s2", 20)
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (expected, "assistant", reason)
    assert (answer.object, answer.usage.completion_tokens) == ("chat.completion", tokens)


def test_prompts_in_a_list_have_their_choices_side_by_side(served):
    texts = ["abc", "", "de"]
    answer = served.complete("s4", texts, n=2, max_tokens=9)
    expected = [served.alone(text, "s4", 9) if text else ("", 0, "stop") for text in texts for _ in range(2)]
    assert [choice.index for choice in answer.choices] == [*range(6)]
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [(t, r) for t, _, r in expected]
    assert answer.usage.completion_tokens == sum(tokens for _, tokens, _ in expected)
    assert answer.usage.prompt_tokens == sum(len(f"{text}\n") for text in texts)


def test_strength_multiplies_the_style_or_blocks_of_layers(served):
    plain = served.complete("s5", max_tokens=20).choices[0].text
    half = served.complete("s5", max_tokens=20, strength=0.5).choices[0].text
    assert half == served.alone("abc", "0.5*s5", 20)[0] != plain
    blocks = {"layers.0-0": 0.25, "mlp": 0.5}
    found = served.complete("s5", max_tokens=20, strength=blocks).choices[0].text
    assert found == served.alone("abc", "s5", 20, style_strength=blocks)[0] != plain
    assert served.complete("s5", max_tokens=20, strength=0).choices[0].text == served.alone("abc", "off", 20)[0]


def test_a_stop_ends_the_text_before_itself(served):
    for style in STYLES:
        whole = served.alone("abc", style, 40)[0]
        stop = whole[len(whole) // 2 :][:2]
        if "\ufffd" in stop or not stop.strip():
            continue
        answer = served.complete(style, max_tokens=40, stop=["never there", stop])
        (choice,) = answer.choices
        assert choice.text == whole[: whole.index(stop)].rstrip()
        assert choice.finish_reason == "stop"
        assert answer.usage.completion_tokens < 40
        return
    pytest.fail("no text to stop in")


# Streams


def streamed(chunks: Any) -> tuple[list[str], list[str], Any]:
    """(texts, reasons, usage) of a stream, one a choice."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            piece = choice.text if hasattr(choice, "text") else choice.delta.content
            assert choice.index not in reasons, "nothing follows the end"
            texts[choice.index] = texts.get(choice.index, "") + (piece or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return [texts[i] for i in sorted(texts)], [reasons[i] for i in sorted(reasons)], usage


def test_a_stream_is_the_answer_in_pieces(served):
    for style in STYLES[:3]:
        options: dict[str, Any] = {"max_tokens": 40, "stop": ["#", "ab"]}
        whole = served.complete(style, ["abc", "日b"], **options)
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        texts, reasons, counted = streamed(served.complete(style, ["abc", "日b"], **options, **usage))
        assert texts == [choice.text for choice in whole.choices]
        assert reasons == [choice.finish_reason for choice in whole.choices]
        assert counted == whole.usage
        said = served.chat(style, "abc", **options)
        texts, reasons, counted = streamed(served.chat(style, "abc", **options, stream=True))
        assert (texts, reasons, counted) == ([said.choices[0].message.content], [said.choices[0].finish_reason], None)


def test_pieces_come_before_the_text_has_ended(served):
    style = endless(served, 100)
    before = served.metric("generated_tokens_total")
    with served.complete(style, max_tokens=LONG - 10, stream=True) as stream:
        first = next(iter(stream))
        assert first.choices[0].finish_reason is None
        assert served.metric("generated_tokens_total") == before
    until(lambda: served.metric("generated_tokens_total") > before)  # who has left is not written for any more
    assert served.metric("generated_tokens_total") < before + LONG - 10


def test_a_stream_has_openais_form_on_the_wire(served):
    answer = served.post({"model": "s0", "messages": [{"role": "user", "content": "a"}], "stream": True,
                          "stream_options": {"include_usage": True}}, "chat/completions")  # fmt: skip
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = answer.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    assert chunks[-1]["choices"] == []
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


@pytest.mark.parametrize("stops", [(), ("ab",), ("\n\n", "a"), ("é", "aba")])
def test_the_pieces_of_any_tokens_join_to_their_text(stops):
    tokenizer = byte_tokenizer()
    letters = tokenizer("aab \n\né日ba b")["input_ids"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        places = torch.randint(len(letters), (30,), generator=generator)
        tokens = [letters[i] for i in places]  # whole characters by chance, parts of them mostly
        text = GrowingText(tokenizer, stops)
        pieces = []
        for token in tokens:
            pieces.append(text.add(token))
            if text.stopped:
                break
        joined = "".join([*pieces, text.end()])
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        cuts = [whole.index(stop) for stop in stops if stop in whole]
        assert text.stopped == bool(cuts)
        assert joined == whole[: min(cuts, default=len(whole))].strip()


def test_bytes_that_make_no_character_are_held_back_no_longer_than_one_would_be():
    tokenizer = byte_tokenizer()
    part = tokenizer("日")["input_ids"][1]
    text = GrowingText(tokenizer)
    pieces = [text.add(part) for _ in range(20)]
    assert len("".join(pieces)) == 20 - 4
    assert "".join([*pieces, text.end()]) == tokenizer.decode([part] * 20)


# Drawn texts


def test_texts_are_drawn_as_write_draws_them_and_the_seed_is_the_rows_own(writing):
    pipe = writing.pipe
    prompts = ["ab", "a longer prompt"]
    expected = write(pipe.model, pipe.tokenizer, prompts, "s1", samples=3, seed=7, max_new_tokens=20)
    answer = writing.complete("s1", prompts, n=3, seed=7, max_tokens=20)
    assert [choice.text for choice in answer.choices] == [text for texts in expected for text in texts]
    options: dict[str, Any] = {"temperature": 0.7, "top_p": 0.8, "top_k": 9}
    expected = write(pipe.model, pipe.tokenizer, ["ab"], "s1", seed=3, max_new_tokens=20, noise_scale=0.5, **options)
    answer = writing.complete("s1", "ab", seed=3, max_tokens=20, diversity=0.5, **options)
    assert answer.choices[0].text == expected[0][0]
    free = [writing.complete("s1", "ab", max_tokens=20).choices[0].text for _ in range(2)]
    assert free[0] != free[1]


def test_temperature_zero_is_greedy_and_takes_no_noise(writing):
    given, options = (writing.pipe.model, writing.pipe.tokenizer, ["ab"], "s1"), {"max_new_tokens": 20, "seed": 1}
    ((expected,),) = write(*given, temperature=0.0, noise_scale=0.0, **options)
    ((varied,),) = write(*given, temperature=0.0, noise_scale=4.0, **options)
    assert writing.complete("s1", "ab", temperature=0, max_tokens=20).choices[0].text == expected
    answer = writing.complete("s1", "ab", temperature=0, max_tokens=20, diversity=4.0, seed=1)
    assert answer.choices[0].text == varied != expected


def test_a_rewrite_is_drawn_where_a_temperature_or_diversity_asks_for_it(served):
    pipe = served.pipe
    for asked in ({"temperature": 1.5}, {"diversity": 1.5}):
        answer = served.complete("s1", "abc", n=3, seed=5, max_tokens=20, **asked)
        expected = write(pipe.model, pipe.tokenizer, ["abc"], "s1", samples=3, seed=5, temperature=1.5,
                         max_new_tokens=20)  # fmt: skip
        assert [choice.text for choice in answer.choices] == expected[0]


def test_a_conversation_takes_the_template_of_the_backbone(writing):
    pipe = writing.pipe
    turns = [
        {"role": "developer", "content": "x"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    written = "<system>x<user>a<assistant>b<user>c<bot>"
    expected = write(pipe.model, pipe.tokenizer, [written], "s2", prompt="{source}", seed=4, max_new_tokens=20)[0][0]
    answer = writing.chat("s2", turns, seed=4, max_tokens=20)
    assert answer.choices[0].message.content == expected
    assert answer.usage.prompt_tokens == len(written)


# Batches


def test_what_is_written_together_is_what_is_written_alone(writing):
    pipe = writing.pipe
    asked: list[dict[str, Any]] = [
        {"style": f"s{i % 8}", "text": "abcdefgh"[: 1 + i % 7] * (1 + i % 3), "seed": i, "max_tokens": 4 + 3 * (i % 6),
         "temperature": (0.0, 0.5, 1.0, 1.7)[i % 4], "top_p": (1.0, 0.9)[i % 2], "strength": (1.0, 0.5, -1.0)[i % 3],
         "diversity": (None, 1.0, 2.0)[i % 3]}
        for i in range(24)
    ]  # fmt: skip
    before = writing.metric("batch_size_count"), writing.metric("batch_size_sum")
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda one: writing.complete(**one), asked))
    batches, rows = writing.metric("batch_size_count") - before[0], writing.metric("batch_size_sum") - before[1]
    assert rows == 24
    assert batches < 12  # they were written together
    for one, answer in zip(asked, answers, strict=True):
        scale = one["diversity"] if one["diversity"] is not None else float(one["temperature"] > 0)
        expected = write(
            pipe.model,
            pipe.tokenizer,
            [one["text"]],
            one["strength"] * pipe.styles[one["style"]],
            seed=one["seed"],
            temperature=one["temperature"],
            top_p=one["top_p"],
            noise_scale=scale,
            max_new_tokens=one["max_tokens"],
        )
        assert answer.choices[0].text == expected[0][0]


def test_sixty_four_requests_of_eight_styles_at_once_are_each_as_if_alone(served):
    asked = [(STYLES[i % 8], "ab" * (1 + i % 5) + str(i)) for i in range(64)]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda one: served.complete(*one, max_tokens=16), asked))
    for (style, text), answer in zip(asked, answers, strict=True):
        expected = served.alone(text, style, 16)
        (choice,) = answer.choices
        assert (choice.text, answer.usage.completion_tokens, choice.finish_reason) == expected
    assert len({answer.choices[0].text for answer in answers}) > 32


def test_a_long_prompt_and_a_long_text_do_not_share_positions_that_run_out():
    pipe = pipeline(
        randomised(adapted(gpt2(), styles=STYLES, target_modules=["c_attn", "c_fc"])).eval(), byte_tokenizer()
    )
    with serving(pipe, batch_wait_ms=200.0) as served, ThreadPoolExecutor(2) as pool:  # 64 positions
        long_prompt = pool.submit(served.complete, "s0", "a" * 50, max_tokens=10)
        long_text = pool.submit(served.complete, "s1", "ab", max_tokens=60)
        assert long_prompt.result().choices[0].text == served.alone("a" * 50, "s0", 10)[0]
        assert long_text.result().choices[0].text == served.alone("ab", "s1", 60)[0]


def test_an_encoder_decoder_is_served_too():
    model = randomised(adapted(t5(initializer_factor=4.0), styles=STYLES, task_type="SEQ_2_SEQ_LM")).eval()
    with serving(pipeline(model, byte_tokenizer()), batch_wait_ms=100.0) as served:
        texts = ["ab", "a much longer text"]
        answer = served.complete("s3", texts, max_tokens=12)
        for text, choice in zip(texts, answer.choices, strict=True):
            assert (choice.text, choice.finish_reason) == served.alone(text, "s3", 12)[::2]


# Mistakes


@pytest.mark.parametrize(
    ("body", "status", "param", "text"),
    [
        ({"model": "laud"}, 404, "model", "model='laud' must be one of the adapter's styles: s0, s1"),
        ({"model": "s0 + laud"}, 400, "model", "model='s0 + laud', column 6: 'laud' must be one of"),
        ({"model": "s0 +"}, 400, "model", "column 5: a style or a number must stand here"),
        ({"model": "(" * 400 + "s0" + ")" * 90}, 400, "model", "nested too deeply"),
        ({"model": "1e999*s0"}, 400, "model", "weights must be within +-1000"),
        ({"model": "s0" * 300}, 400, "model", "at most 500 characters"),
        ({"model": None}, 400, "model", "model=None: "),
        ({"prompt": []}, 400, "prompt", "prompt"),
        ({"prompt": [1, 2]}, 400, "prompt", "prompt"),
        ({"prompt": "a" * 5000}, 400, "prompt", "the prompt has 5001 tokens, and the model's context of 4096"),
        ({"max_tokens": 4095}, 400, "prompt", "the prompt has 4 tokens and max_tokens=4095, and the model's context"),
        ({"max_tokens": 5000}, 400, "max_tokens", "max_tokens=5000 must be at most 4096"),
        ({"max_tokens": 0}, 400, "max_tokens", "max_tokens=0: Input should be greater than or equal to 1"),
        ({"max_tokens": "9"}, 400, "max_tokens", "max_tokens='9': Input should be a valid integer"),
        ({"n": 17}, 400, "n", "n=17 must be at most 16"),
        ({"n": 16, "prompt": ["a"] * 17}, 400, "prompt", "17 times n=16 must be at most 256 texts"),
        ({"temperature": 3}, 400, "temperature", "temperature=3: Input should be less than or equal to 2"),
        ({"top_p": 0}, 400, "top_p", "top_p=0: Input should be greater than 0"),
        ({"stop": ["a"] * 5}, 400, "stop", "stop"),
        ({"stop": ""}, 400, "stop", "stop"),
        ({"strength": 1e9}, 400, "strength", "weights must be within +-1000"),
        ({"strength": {"q_proj": 1e9}}, 400, "strength", "must be within +-1000"),
        ({"strength": {"nowhere": 1}}, 400, "strength", "strength: 'nowhere' must name an adapted layer"),
        ({"diversity": -1}, 400, "diversity", "diversity=-1: Input should be greater than or equal to 0"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "must come with stream=true"),
        ({"temprature": 1}, 400, "temprature", "temprature=1 is no field that is known here; the known ones are div"),
        ({"logprobs": 0}, 400, "logprobs", "logprobs=0 is not supported here; leave it out"),
        ({"echo": True}, 400, "echo", "echo=True is not supported here"),
        ({"best_of": 3, "n": 2}, 400, "best_of", "best_of=3 is not supported here"),
        ({"logit_bias": {"50": 1}}, 400, "logit_bias", "logit_bias={'50': 1} is not supported here"),
        ({"suffix": "x"}, 400, "suffix", "suffix='x' is not supported here"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", "presence_penalty=0.5 is not supported here"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_mistake_is_refused_by_name_in_openais_form(served, body, status, param, text):
    answer = served.post({"model": "s0", "prompt": "abc"} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert text in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == {404: "model_not_found"}.get(status, error["code"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [1]}]}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
    ],
    ids=str,
)
def test_what_a_chat_cannot_do_is_refused_by_name(served, body, param):
    answer = served.post({"model": "s0", "messages": [{"role": "user", "content": "a"}]} | body, "chat/completions")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_fields_that_ask_for_nothing_are_taken(served):
    plain = served.complete("s0", max_tokens=9).choices[0].text
    neutral: dict[str, Any] = {"echo": False, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}
    neutral |= {"logprobs": None, "suffix": None, "user": "me", "best_of": 1, "stream": False}
    assert served.complete("s0", max_tokens=9, **neutral).choices[0].text == plain
    chat: dict[str, Any] = {"logprobs": False, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}}
    chat |= {"metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True}
    assert served.chat("s0", "abc", max_tokens=9, **chat).choices[0].message.content == plain


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b'{"model": NaN}', b"\xff\xfe", b'"' + b"[" * 5000], ids=str)
def test_what_is_no_json_object_is_refused(served, raw):
    answer = served.post(raw)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_other_routes_and_methods_are_refused_in_the_same_form(served):
    for answer, status in ((served.post({}, "embeddings"), 404), (httpx.get(f"{served.url}/v1/completions"), 405)):
        assert answer.status_code == status
        assert "is not served here" in answer.json()["error"]["message"]


def test_a_conversation_without_a_template_or_that_it_refuses_is_a_mistake():
    model, tokenizer = randomised(adapted(styles=STYLES)).eval(), byte_tokenizer()
    with serving(pipeline(model, tokenizer, task="generation")) as served:
        with pytest.raises(openai.BadRequestError, match="messages need a backbone with a chat template"):
            served.chat("s0", "a")
        tokenizer.chat_template = "{{ raise_exception('turns must alternate') }}"
        with pytest.raises(openai.BadRequestError, match="turns must alternate"):
            served.chat("s0", "a")


def test_a_failing_model_is_the_servers_fault_and_the_server_goes_on(caplog):
    pipe = rewriter()

    def fail(module: Any, args: Any, kwargs: Any) -> None:
        if (kwargs["input_ids"] == byte_tokenizer()("!")["input_ids"][0]).any():
            raise RuntimeError("out of memory")

    pipe.model.get_base_model().model.register_forward_pre_hook(fail, with_kwargs=True)
    with serving(pipe) as served:
        with pytest.raises(openai.InternalServerError, match="the text could not be written"):
            served.complete("s0", "a!", max_tokens=5)
        with pytest.raises(openai.APIError, match="the text could not be written"):
            list(served.complete("s0", "a!", max_tokens=5, stream=True))
        assert served.complete("s0", "a", max_tokens=5).choices[0].text == served.alone("a", "s0", 5)[0]
        assert served.metric("requests_total", route="/v1/completions", status="500") == 1
    assert "out of memory" in caplog.text


# Limits, keys, metrics


def test_a_body_that_is_too_large_is_refused():
    with serving(rewriter(), max_body_kib=2) as served:
        for size in (3_000, 300_000):
            answer = served.post({"model": "s0", "prompt": "a" * size})
            assert answer.status_code == 413
            assert "must have at most 2048 bytes" in answer.json()["error"]["message"]
        parts = (part for part in [b'{"model": "s0", "prompt": "', *[b"a" * 1000] * 3, b'"}'])
        assert httpx.post(f"{served.url}/v1/completions", content=parts).status_code == 413  # of no declared length
        assert served.complete("s0", "a", max_tokens=3).choices


def test_a_full_queue_is_refused_and_whoever_leaves_makes_room():
    with serving(rewriter(), max_queue=2, batch_size=1, max_new_tokens=LONG) as served, ThreadPoolExecutor(2) as pool:
        style = endless(served, 100)
        stream = served.complete(style, max_tokens=LONG - 10, stream=True)
        next(iter(stream))  # the only place in the batch is taken
        waiting = [pool.submit(served.complete, "s1", text, max_tokens=5) for text in ("a", "b")]
        until(lambda: served.metric("queue_length") == 2)
        with pytest.raises(openai.RateLimitError, match="2 texts wait and at most max_queue=2 may") as refused:
            served.complete("s1", "c")
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.code == "queue_full"
        stream.close()
        assert [one.result().choices[0].text for one in waiting] == [served.alone(t, "s1", 5)[0] for t in ("a", "b")]
        assert served.metric("queue_length") == 0


def test_a_client_that_leaves_is_not_written_for():
    with serving(rewriter(), batch_size=1, max_new_tokens=LONG) as served:
        style = endless(served, 100)
        hasty = served.client.with_options(timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            hasty.completions.create(model=style, prompt="abc", max_tokens=LONG - 10)
        until(lambda: served.metric("requests_total", route="/v1/completions", status="499") == 1)
        assert served.complete("s1", "a", max_tokens=5).choices[0].text == served.alone("a", "s1", 5)[0]
        assert served.metric("generated_tokens_total") < LONG - 10


def test_a_key_is_asked_for_where_there_is_one():
    with serving(rewriter(), api_key="secret é") as served:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = served.post({"model": "s0", "prompt": "a"}, headers=header)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        right = {"Authorization": "Bearer secret é".encode()}
        assert served.post({"model": "s0", "prompt": "a", "max_tokens": 3}, headers=right).status_code == 200
        assert httpx.get(f"{served.url}/v1/models").status_code == 401
        assert httpx.get(f"{served.url}/health").status_code == 200


def test_health_says_what_is_served(served):
    found = httpx.get(f"{served.url}/health").json()
    assert found == {"status": "ready", "model": "toy", "task": "transfer", "styles": 8}


def test_metrics_count_requests_batches_and_tokens(served):
    answered = {"route": "/v1/completions", "status": "200"}
    names = ("requests_total", "request_seconds_count", "batch_size_sum", "generated_tokens_total")
    labels = (answered, {"route": "/v1/completions"}, {}, {})

    def numbers() -> list[float]:
        return [served.metric(name, **each) for name, each in zip(names, labels, strict=True)]

    before, refused = numbers(), served.metric("requests_total", route="/v1/completions", status="404")
    tokens = served.complete("s0", ["a", "b"], n=2, max_tokens=7).usage.completion_tokens
    served.post({"model": "laud", "prompt": "a"})
    until(lambda: numbers() == [before[0] + 1, before[1] + 2, before[2] + 4, before[3] + tokens])
    assert served.metric("requests_total", route="/v1/completions", status="404") == refused + 1
    assert httpx.get(f"{served.url}/nowhere").status_code == 404
    assert served.metric("requests_total", route="other", status="404") >= 1


# The terminal


@pytest.fixture
def folder(tmp_path) -> Path:
    """The adapter of eight styles as a folder, beside its backbone."""
    pipe = rewriter()
    save_backbone(tmp_path, llama(max_position_embeddings=LONG))
    pipe.model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    pipe.model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_signal_lets_open_answers_end_refuses_new_ones_and_exits_0(folder, served):
    tokens = 600
    style = endless(served, tokens)
    command = [sys.executable, "-m", "style_adapter", "serve", str(folder), "--port", "0", "--max-new-tokens", "600"]
    environment = os.environ | {"STYLE_ADAPTER_API_KEY": "secret"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        greeting = process.stdout.readline()
        url = re.fullmatch(r"8 styles of 'adapter' at (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C ends it\)\n", greeting)[1]
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=STARTED)
        stream = client.completions.create(model=style, prompt="abc", max_tokens=tokens, stream=True)
        first = next(iter(stream))
        process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{url.removesuffix('/v1')}/health").status_code == 503)
        with pytest.raises(openai.InternalServerError, match="the server is stopping") as refused:
            client.completions.create(model=style, prompt="abc")
        assert refused.value.status_code == 503
        texts, reasons, _ = streamed([first, *stream])
        assert (texts, reasons) == ([served.alone("abc", style, tokens)[0]], ["length"])
        client.close()
        assert process.wait(STARTED) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_port_that_is_taken_is_said_in_one_line(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folder), "--port", port]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"style-adapter serve: --host 127.0.0.1 --port {port} cannot be listened at: .*\n", said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "batch_size=0 must be >= 1; correct it in ServerOptions, or the option of"),
        (["--port", "99999"], "--port 99999 cannot be listened at"),
        (["--task", "classification"], "argument --task: invalid choice: 'classification'"),
        (["--batch", "3"], "'--batch' is no option; did you mean '--batch-size'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_said_in_one_line(folder, capsys, options, message):
    try:
        status = main(["serve", str(folder), *options])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_missing_package_is_named_with_what_installs_it(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(folder)]) == 2
    assert "a server needs uvicorn; pip install 'style_adapter[serve]'" in capsys.readouterr().err


def test_an_adapter_that_sorts_is_not_served():
    model = randomised(adapted(llama_classifier(), task_type="SEQ_CLS")).eval()
    with pytest.raises(ValueError, match="task='classification' must be one of transfer, generation to be served"):
        build_app(pipeline(model, byte_tokenizer()))
