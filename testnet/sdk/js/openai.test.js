// The openai package, unmodified, against a node of a real network.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const endpoints = JSON.parse(process.env.INFERNET_ENDPOINTS);
const { tiny_model: TINY, script_model: SCRIPT, embed_model: EMBED } = endpoints;

const client = (url = "base_url", apiKey = "not-needed", maxRetries = 0) =>
  new OpenAI({ baseURL: endpoints[url], apiKey, maxRetries, timeout: 60_000 });
const says = (content) => [{ role: "user", content }];
const chat = (body, on = client()) => on.chat.completions.create({ model: SCRIPT, ...body });
const weather = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

test("a real model answers whole and as a stream", async () => {
  const ask = { model: TINY, messages: says("What is the capital of France?"), temperature: 0, max_tokens: 24 };
  const whole = await chat(ask);
  let text = "";
  for await (const chunk of await chat({ ...ask, stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
  assert.ok(text);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
});

test("usage comes in one last chunk if asked for", async () => {
  const chunks = [];
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await chat({ messages: says("one two"), ...options })) chunks.push(chunk);
  const last = chunks.pop();
  assert.deepEqual([last.choices, last.usage.completion_tokens], [[], 2]);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
});

test("tools are called in whole answers and streams", async () => {
  const whole = await chat({ messages: says("weather?"), tools: [weather] });
  assert.deepEqual(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments), { city: "text" });
  const stream = client().chat.completions.stream({ model: SCRIPT, messages: says("weather?"), tools: [weather] });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.equal(final.choices[0].message.tool_calls[0].function.name, "weather");
});

test("schemas, probabilities, several answers, stops", async () => {
  const schema = { type: "object", properties: { n: { type: "integer" } } };
  const format = { type: "json_schema", json_schema: { name: "number", schema } };
  const number = await chat({ messages: says("a number"), response_format: format });
  assert.deepEqual(JSON.parse(number.choices[0].message.content), { n: 42 });
  const likely = await chat({ messages: says("a b"), logprobs: true, top_logprobs: 2 });
  assert.equal(likely.choices[0].logprobs.content[0].top_logprobs.length, 2);
  const three = await chat({ messages: says("seed?"), n: 3, seed: 5 });
  assert.deepEqual(three.choices.map((choice) => choice.message.content), ["5", "6", "7"]);
  const stopped = await chat({ messages: says("say END now"), stop: "END" });
  assert.equal(stopped.choices[0].message.content, "say ");
});

test("completions, vectors and models", async () => {
  const text = await client().completions.create({ model: SCRIPT, prompt: "a" });
  assert.equal(text.choices[0].text, " and a again");
  const packed = await client().embeddings.create({ model: EMBED, input: ["a", "b"] });
  const plain = await client().embeddings.create({ model: EMBED, input: ["a", "b"], encoding_format: "float" });
  assert.deepEqual(packed.data[1].embedding, plain.data[1].embedding);
  const ids = [];
  for await (const model of client().models.list()) ids.push(model.id);
  assert.ok([TINY, SCRIPT, EMBED].every((id) => ids.includes(id)));
  assert.equal((await client().models.retrieve(SCRIPT)).id, SCRIPT);
});

test("each failure has its class", async () => {
  const messages = says("hi");
  await assert.rejects(chat({ messages, model: "nobody/has-it" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(chat({ messages }, client("base_url", "sk-infernet-wrong")), OpenAI.AuthenticationError);
  await assert.rejects(chat({ messages, temperature: 9 }), OpenAI.BadRequestError);
  await assert.rejects(chat({ messages }, client("poor_base_url")), (error) => error.status === 402 && error.code === "spend_cap");
  await assert.rejects(chat({ messages: says("fail 2") }), OpenAI.InternalServerError);
});

test("a stream that breaks off throws", async () => {
  let text = "";
  const reading = async () => {
    for await (const chunk of await chat({ messages: says("cut 3"), stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
  };
  await assert.rejects(reading, (error) => error instanceof OpenAI.APIError && error.code === "worker_failed");
  assert.equal(text, "word0 word1 word2 ");
});

test("an abort frees the place, and who waits gets it", async () => {
  const narrow = client("narrow_base_url", "any", 5);
  const held = await chat({ messages: says("drone"), max_tokens: 3000, stream: true }, narrow);
  let pieces = 0;
  for await (const _ of held) {
    if (++pieces === 1) await assert.rejects(chat({ messages: says("hi") }, client("narrow_base_url")), OpenAI.RateLimitError);
    if (pieces === 5) held.controller.abort();
  }
  const answer = await chat({ messages: says("hi") }, narrow);
  assert.equal(answer.choices[0].message.content, "hi");
});
