/**
 * Talks to a running server through LangChain's ChatOpenAI, unmodified.
 *
 *     langchain_client.mjs --config JSON
 *
 * As openai_client.mjs; it must lie beside a node_modules with @langchain/openai and @langchain/core.
 */
import process from "node:process";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { config: { type: "string" } } });
const { main, model, prompt } = JSON.parse(values.config);
// A name in a variable, so that who only checks this file need not have the package.
const name = "@langchain/openai";
const { ChatOpenAI } = await import(name);

const checks = [];
const same = (what, found, expected) => checks.push({ what, found, expected });
const one = new ChatOpenAI({
  model,
  temperature: 0,
  maxTokens: 16,
  maxRetries: 0,
  apiKey: main.key,
  configuration: { baseURL: `${main.url}/v1` },
});
const whole = await one.invoke(prompt);
same("invoke says something", whole.content.length > 0, true);
same("invoke: usage", whole.usage_metadata.output_tokens, 16);
let text = "";
let tokens = 0;
for await (const chunk of await one.stream(prompt)) {
  text += chunk.content;
  tokens += chunk.usage_metadata?.output_tokens ?? 0;
}
same("stream: the same text", text, whole.content);
same("stream: usage", tokens, 16);
process.stdout.write(JSON.stringify({ version: "", checks, skipped: [] }));
