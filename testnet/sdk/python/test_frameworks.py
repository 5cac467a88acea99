"""LiteLLM and LangChain, unmodified, against a node of a real network."""

import json
import os
import unittest

# Neither may fetch anything: tests stay on this machine.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LANGSMITH_TRACING"] = "false"

import litellm
import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

litellm.telemetry = False
litellm.suppress_debug_info = True
ENDPOINTS = json.loads(os.environ["INFERNET_ENDPOINTS"])
BASE, TINY, SCRIPT, EMBED = (ENDPOINTS[name] for name in ("base_url", "tiny_model", "script_model", "embed_model"))


def lite(text, model=SCRIPT, **more):
    messages = [{"role": "user", "content": text}]
    return litellm.completion(model=f"openai/{model}", api_base=BASE, api_key="any", messages=messages, num_retries=0, **more)


class LiteLlm(unittest.TestCase):
    def test_whole_and_stream(self):
        self.assertEqual(lite("one two").choices[0].message.content, "one two")
        self.assertEqual(lite("one two").usage.completion_tokens, 2)
        chunks = list(lite("one two", stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), "one two")
        self.assertEqual([chunk.usage.completion_tokens for chunk in chunks if getattr(chunk, "usage", None)], [2])

    def test_a_real_model(self):
        self.assertTrue(lite("What is the capital of France?", model=TINY, max_tokens=16).choices[0].message.content)

    def test_tools(self):
        weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
        chunks = list(lite("weather?", tools=[weather], stream=True))
        whole = litellm.stream_chunk_builder(chunks)
        self.assertEqual(whole.choices[0].message.tool_calls[0].function.name, "weather")

    def test_vectors(self):
        answer = litellm.embedding(model=f"openai/{EMBED}", api_base=BASE, api_key="any", input=["a", "b"])
        self.assertEqual(len(answer.data), 2)

    def test_failures(self):
        with self.assertRaises(litellm.NotFoundError):
            lite("hi", model="nobody/has-it")
        with self.assertRaises(litellm.AuthenticationError):
            litellm.completion(
                model=f"openai/{SCRIPT}", api_base=BASE, api_key="sk-infernet-wrong", messages=[{"role": "user", "content": "hi"}]
            )
        # Its own class for a stream that broke off; as all of its errors, one of openai's.
        with self.assertRaises(openai.APIError):
            list(lite("cut 2", stream=True))


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Number(BaseModel):
    """A number."""

    n: int


def chain(model=SCRIPT, **more):
    return ChatOpenAI(model=model, base_url=BASE, api_key="any", max_retries=0, **more)


class LangChain(unittest.TestCase):
    def test_whole_and_stream(self):
        answer = chain().invoke("one two")
        self.assertEqual((answer.content, answer.usage_metadata["output_tokens"]), ("one two", 2))
        self.assertEqual("".join(chunk.content for chunk in chain().stream("one two")), "one two")

    def test_a_real_model(self):
        self.assertTrue(chain(TINY, max_tokens=16).invoke("What is the capital of France?").content)

    def test_tools(self):
        asked = HumanMessage("weather?")
        called = chain().bind_tools([weather]).invoke([asked])
        call = called.tool_calls[0]
        self.assertEqual((call["name"], call["args"]), ("weather", {"city": "text"}))
        told = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
        self.assertEqual(chain().invoke([asked, called, told]).content, "The tool said: sunny in text")

    def test_structured_output(self):
        self.assertEqual(chain().with_structured_output(Number, method="json_schema").invoke("a number"), Number(n=42))

    def test_vectors(self):
        # Without this it counts with OpenAI's tokenizer, which it would download.
        embed = OpenAIEmbeddings(model=EMBED, base_url=BASE, api_key="any", check_embedding_ctx_length=False)
        first, second = embed.embed_documents(["a", "b"])
        self.assertEqual((len(first), first == second), (8, False))


if __name__ == "__main__":
    unittest.main()
