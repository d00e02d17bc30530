"""Talks to a running server through OpenAI's own package, unmodified.

    openai_client.py --config JSON

The JSON is what server.ts calls ClientConfig. Prints {version, checks: [{what, found, expected}], skipped}.
Needs openai, which brings pydantic.
"""

import argparse
import asyncio
import json
import sys
import threading
import traceback
from typing import Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

parser = argparse.ArgumentParser()
parser.add_argument("--config", required=True, type=json.loads)
config = parser.parse_args().config

checks = []
skipped = []


def same(what, found, expected):
    checks.append({"what": what, "found": found, "expected": expected})


def raises(what, call, kind, **fields):
    """Notes which error a call ends in, and some of its fields."""
    try:
        call()
        same(what, "no error", kind.__name__)
    except openai.OpenAIError as error:
        found = kind.__name__ if isinstance(error, kind) else f"{type(error).__name__}: {error}"
        about = {name: getattr(error, name, None) for name in fields}
        same(what, {"error": found, **about}, {"error": kind.__name__, **fields})


def client_of(server, **options):
    options = {"max_retries": 0, "api_key": server.get("key", "any"), **options}
    return OpenAI(base_url=server["url"] + "/v1", **options)


client = client_of(config["main"])
model, prompt, text = config["model"], config["prompt"], config["text"]
greedy = {"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0}
chat = {
    "model": model,
    "messages": [{"role": "user", "content": prompt}],
    "max_tokens": 16,
    "temperature": 0,
}
# Far more text than is waited for.
long = {"model": model, "prompt": prompt, "max_tokens": 480, "temperature": 1, "n": 8, "seed": 1}


def models():
    same("models.list", [one.id for one in client.models.list()], [model])
    same("models.retrieve", client.models.retrieve(model).id, model)


def completions():
    whole = client.completions.create(**greedy)
    same("completions: text", whole.choices[0].text, text)
    same("completions: completion_tokens", whole.usage.completion_tokens, 16)
    several = client.completions.create(**{**greedy, "prompt": [prompt, "In the year"]})
    same("completions: a list", [one.index for one in several.choices], [0, 1])
    same("completions: first of a list", several.choices[0].text, text)
    events = list(client.completions.create(**greedy, stream=True))
    same("completions: streamed", "".join(one.choices[0].text for one in events), text)
    same("completions: streamed, finish_reason", events[-1].choices[0].finish_reason, "length")
    told = client.completions.create(**greedy, logprobs=2)
    same("completions: logprobs", "".join(told.choices[0].logprobs.tokens), text)


def chats():
    whole = client.chat.completions.create(**chat)
    said = whole.choices[0].message.content
    same("chat: message", whole.choices[0].message.role, "assistant")
    events = list(client.chat.completions.create(**chat, stream=True))
    contents = [one.choices[0].delta.content or "" for one in events]
    same("chat: streamed", "".join(contents), said)
    usage = {"include_usage": True}
    told = list(client.chat.completions.create(**chat, stream=True, stream_options=usage))
    same("chat: usage comes last", [len(told[-1].choices), told[-1].usage.completion_tokens], [0, 16])

    draw = {**chat, "n": 3, "temperature": 1, "seed": 7}
    first, again = (
        [one.message.content for one in client.chat.completions.create(**draw).choices] for _ in "12"
    )
    same("chat: n, and the same seed", again, first)
    same("chat: choices differ", len(set(first)) > 1, True)

    stop = said[5:9]
    stopped = client.chat.completions.create(**chat, stop=[stop])
    same("chat: stop", stopped.choices[0].message.content, said[: said.index(stop)])
    same("chat: stop, finish_reason", stopped.choices[0].finish_reason, "stop")

    logged = client.chat.completions.create(**chat, logprobs=True, top_logprobs=3)
    content = logged.choices[0].logprobs.content
    spelled = b"".join(bytes(one.bytes) for one in content).decode()
    same("chat: logprobs' bytes are the text", spelled, said)
    same("chat: top_logprobs", [len(one.top_logprobs) for one in content], [3] * 16)
    # The helper takes an answer that was cut off for an error.
    with client.chat.completions.stream(**chat, stop=[stop]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    same("chat: the stream helper", final.choices[0].message.content, said[: said.index(stop)])


def asynchronous():
    async def read():
        server = config["main"]
        async with AsyncOpenAI(base_url=server["url"] + "/v1", api_key=server["key"]) as one:
            stream = await one.completions.create(**greedy, stream=True)
            return "".join([event.choices[0].text async for event in stream])

    same("async: streamed", asyncio.run(read()), text)


class Town(BaseModel):
    """What the model is asked for."""

    size: Literal["small", "large"]
    is_old: bool


def structured():
    more = {**chat, "max_tokens": 300}
    try:
        said = client.chat.completions.create(**more, response_format={"type": "json_object"})
    except openai.BadRequestError as error:
        if "not supported yet" not in str(error):
            raise
        skipped.append("response_format: the server has none yet")
        return
    choice = said.choices[0]
    if choice.finish_reason == "stop":
        same("json_object: an object", type(json.loads(choice.message.content)).__name__, "dict")
    else:
        begins = choice.message.content.lstrip()[:1]
        same("json_object: the beginning of an object", begins, "{")
    parsed = client.chat.completions.parse(**more, response_format=Town)
    town = parsed.choices[0].message.parsed
    same(f"parse with a model of pydantic: {town!r}", isinstance(town, Town), True)


def errors():
    raises(
        "a wrong key",
        client_of({**config["main"], "key": "wrong"}).models.list,
        openai.AuthenticationError,
        status_code=401,
        code="invalid_api_key",
    )
    raises(
        "an unknown model",
        lambda: client.completions.create(**{**greedy, "model": "other"}),
        openai.NotFoundError,
        status_code=404,
        code="model_not_found",
        param="model",
    )
    raises(
        "a wrong field",
        lambda: client.chat.completions.create(**{**chat, "temperature": 7}),
        openai.BadRequestError,
        status_code=400,
        param="temperature",
        type="invalid_request_error",
    )
    raises(
        "a prompt that is too long",
        lambda: client.completions.create(**{**greedy, "prompt": "town " * 2000}),
        openai.BadRequestError,
        param="prompt",
        code="context_length_exceeded",
    )
    nobody = client_of({"url": config["nobody"]})
    raises("nobody listens", nobody.models.list, openai.APIConnectionError)
    raises(
        "the client's own timeout",
        lambda: client_of(config["main"], timeout=0.15).completions.create(**long),
        openai.APITimeoutError,
    )


def aborts():
    with client.completions.create(**long, stream=True) as stream:
        for count, _ in enumerate(stream, 1):
            if count == 3:
                break
    same("abort: closed in mid-stream", count, 3)


def six(**options):
    """Six requests at once for one place and one in line."""
    one = client_of(config["tight"], **options)
    results = [None] * 6

    def ask(i):
        try:
            one.completions.create(**{**long, "n": 1, "max_tokens": 200})
        except openai.OpenAIError as error:
            results[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def full():
    refused = [error for error in six() if error]
    same("a full queue sends some away", 0 < len(refused) < 6, True)
    found = {f"{type(error).__name__} {getattr(error, 'code', None)}" for error in refused}
    same("with RateLimitError", sorted(found), ["RateLimitError queue_full"])
    waits = [int(error.response.headers.get("retry-after", 0)) for error in refused]
    same("and Retry-After", min(waits, default=0) >= 1, True)
    retried = [repr(error) for error in six(max_retries=10) if error]
    same("with retries all are answered", retried, [])


def broken():
    one = client_of(config["hurried"])
    try:
        one.completions.create(**{**greedy, "max_tokens": 1})
    except openai.OpenAIError:
        pass  # The first request takes longer; that it may fail is nothing to us.
    count = 0

    def read():
        nonlocal count
        for _ in one.completions.create(**{**long, "n": 1}, stream=True):
            count += 1

    raises("an error in mid-stream", read, openai.APIError, code="timeout")
    same("after some events", count > 0, True)


for part in (models, completions, chats, asynchronous, structured, errors, aborts, full, broken):
    try:
        part()
    except Exception:
        same(part.__name__, traceback.format_exc(), "no error")
json.dump({"version": openai.__version__, "checks": checks, "skipped": skipped}, sys.stdout)
