"""The openai library, unmodified, against a node of a real network."""

import json
import os
import threading
import time
import unittest

import openai
from openai import OpenAI

ENDPOINTS = json.loads(os.environ["INFERNET_ENDPOINTS"])
TINY, SCRIPT, EMBED = ENDPOINTS["tiny_model"], ENDPOINTS["script_model"], ENDPOINTS["embed_model"]


def client(url="base_url", key="not-needed", retries=0):
    return OpenAI(base_url=ENDPOINTS[url], api_key=key, max_retries=retries, timeout=60)


def says(text):
    return [{"role": "user", "content": text}]


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Chat(unittest.TestCase):
    def test_a_real_model_answers_whole_and_as_a_stream(self):
        ask = {"model": TINY, "messages": says("What is the capital of France?"), "temperature": 0, "max_tokens": 24}
        whole = client().chat.completions.create(**ask)
        self.assertTrue(whole.choices[0].message.content)
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        chunks = list(client().chat.completions.create(**ask, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertIn(chunks[-1].choices[0].finish_reason, ("stop", "length"))
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_usage_in_the_last_chunk_if_asked_for(self):
        chunks = list(
            client().chat.completions.create(
                model=SCRIPT, messages=says("one two"), stream=True, stream_options={"include_usage": True}
            )
        )
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 2))
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_tools_are_called_and_answered(self):
        ask = {"model": SCRIPT, "messages": says("weather?"), "tools": [WEATHER], "tool_choice": "auto"}
        message = client().chat.completions.create(**ask).choices[0].message
        call = message.tool_calls[0]
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "text"}))
        told = ask["messages"] + [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        answer = client().chat.completions.create(model=SCRIPT, messages=told, tools=[WEATHER])
        self.assertEqual(answer.choices[0].message.content, "The tool said: sunny")

    def test_tools_are_called_in_streams(self):
        with client().chat.completions.stream(model=SCRIPT, messages=says("weather?"), tools=[WEATHER]) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
        self.assertIn("tool_calls.function.arguments.done", kinds)
        self.assertEqual(final.choices[0].finish_reason, "tool_calls")
        self.assertEqual(final.choices[0].message.tool_calls[0].function.name, "weather")

    def test_a_schema_is_kept(self):
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
        fmt = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
        answer = client().chat.completions.create(model=SCRIPT, messages=says("a number"), response_format=fmt)
        self.assertEqual(json.loads(answer.choices[0].message.content), {"n": 42})

    def test_probabilities(self):
        answer = client().chat.completions.create(model=SCRIPT, messages=says("a b"), logprobs=True, top_logprobs=3)
        tokens = answer.choices[0].logprobs.content
        self.assertEqual([token.token for token in tokens], ["a ", "b"])
        self.assertEqual((tokens[0].logprob, len(tokens[0].top_logprobs)), (-0.25, 3))

    def test_several_answers_each_with_its_seed(self):
        answer = client().chat.completions.create(model=SCRIPT, messages=says("seed?"), n=3, seed=5)
        self.assertEqual([choice.message.content for choice in answer.choices], ["5", "6", "7"])
        texts = {}
        for chunk in client().chat.completions.create(model=SCRIPT, messages=says("seed?"), n=3, seed=5, stream=True):
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
        self.assertEqual(texts, {0: "5", 1: "6", 2: "7"})

    def test_it_stops_where_it_should(self):
        answer = client().chat.completions.create(model=SCRIPT, messages=says("say END now"), stop=["END"])
        self.assertEqual(answer.choices[0].message.content, "say ")
        answer = client().chat.completions.create(model=SCRIPT, messages=says("a b c d"), max_completion_tokens=2)
        self.assertEqual((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 2))

    def test_what_is_ours_is_there_for_who_looks(self):
        answer = client().chat.completions.create(model=SCRIPT, messages=says("one"), extra_body={"infernet": {"rule": "cheapest"}})
        self.assertGreater(answer.model_extra["infernet"]["amount_micro_usd"], 0)

    def test_a_reasoning_is_not_the_answer(self):
        message = client().chat.completions.create(model=SCRIPT, messages=says("think well")).choices[0].message
        self.assertEqual((message.content, message.model_extra["reasoning_content"]), ("well", "hmm"))


class Others(unittest.TestCase):
    def test_models(self):
        ids = [model.id for model in client().models.list()]
        self.assertTrue({TINY, SCRIPT, EMBED} <= set(ids))
        self.assertEqual(client().models.retrieve(SCRIPT).id, SCRIPT)

    def test_completions(self):
        answer = client().completions.create(model=SCRIPT, prompt=["a", "b"], echo=True)
        self.assertEqual([choice.text for choice in answer.choices], ["a and a again", "b and b again"])
        stream = client().completions.create(model=SCRIPT, prompt="a", stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in stream), " and a again")

    def test_vectors(self):
        # The library asks for base64 unless told otherwise.
        texts = [f"text {n}" for n in range(300)]
        packed = client().embeddings.create(model=EMBED, input=texts)
        plain = client().embeddings.create(model=EMBED, input=texts, encoding_format="float")
        self.assertEqual([item.index for item in packed.data], list(range(300)))
        self.assertEqual(packed.data[299].embedding, plain.data[299].embedding)
        self.assertEqual(packed.usage.prompt_tokens, 600)


class Failures(unittest.TestCase):
    def test_each_has_its_exception(self):
        ask = {"model": SCRIPT, "messages": says("hi")}
        with self.assertRaises(openai.NotFoundError) as unknown:
            client().chat.completions.create(**{**ask, "model": "nobody/has-it"})
        self.assertEqual((unknown.exception.code, unknown.exception.param), ("model_not_found", "model"))
        with self.assertRaises(openai.AuthenticationError) as wrong:
            client(key="sk-infernet-wrong").chat.completions.create(**ask)
        self.assertEqual(wrong.exception.code, "invalid_api_key")
        with self.assertRaises(openai.BadRequestError) as bad:
            client().chat.completions.create(**ask, temperature=9)
        self.assertEqual(bad.exception.param, "temperature")
        with self.assertRaises(openai.APIStatusError) as poor:
            client("poor_base_url").chat.completions.create(**ask)
        self.assertEqual((poor.exception.status_code, poor.exception.code), (402, "spend_cap"))
        with self.assertRaises(openai.InternalServerError) as failed:
            client().chat.completions.create(**{**ask, "messages": says("fail 2")})
        self.assertEqual(failed.exception.body["partial"], "word0 word1 ")

    def test_a_stream_that_breaks_off_raises(self):
        text = ""
        with self.assertRaises(openai.APIError) as cut:
            for chunk in client().chat.completions.create(model=SCRIPT, messages=says("cut 3"), stream=True):
                text += chunk.choices[0].delta.content or ""
        self.assertEqual((cut.exception.code, text), ("worker_failed", "word0 word1 word2 "))

    def test_full_is_a_rate_limit_and_is_tried_again(self):
        held = client("narrow_base_url").chat.completions.create(
            model=SCRIPT, messages=says("drone"), max_tokens=3000, stream=True
        )
        next(iter(held))
        ask = {"model": SCRIPT, "messages": says("hi")}
        with self.assertRaises(openai.RateLimitError) as full:
            client("narrow_base_url").chat.completions.create(**ask)
        self.assertEqual(full.exception.response.headers["retry-after"], "2")
        threading.Timer(0.5, held.close).start()
        begun = time.monotonic()
        answer = client("narrow_base_url", retries=5).chat.completions.create(**ask)
        self.assertEqual(answer.choices[0].message.content, "hi")
        self.assertGreater(time.monotonic() - begun, 1.5, "the library waited as it was told to")

    def test_who_leaves_frees_the_place(self):
        stream = client("narrow_base_url", retries=5).chat.completions.create(
            model=SCRIPT, messages=says("drone"), max_tokens=3000, stream=True
        )
        for _ in zip(range(5), stream):
            pass
        stream.close()
        answer = client("narrow_base_url", retries=5).chat.completions.create(model=SCRIPT, messages=says("hi"))
        self.assertEqual(answer.choices[0].message.content, "hi")


if __name__ == "__main__":
    unittest.main()
