/**
 * Talks to a bundle that runs somewhere, through OpenAI's own package, unmodified.
 *
 *     edge_client.mjs --config JSON
 *
 * The JSON is what edge.ts calls `ClientConfig`. Prints {version, checks: [{what, found, expected}]}. Plain
 * JavaScript for Node; it must lie beside a node_modules with openai.
 */
import process from "node:process";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { config: { type: "string" } } });
const { url, key, model, prompt, text, requests } = JSON.parse(values.config);

// Names in variables, so that who only checks this file need not have the package.
const [openaiName, versionName] = ["openai", "openai/version"];
const { OpenAI } = await import(openaiName);
const { VERSION } = await import(versionName);

const checks = [];
const same = (what, found, expected) => checks.push({ what, found, expected });
const clientOf = (apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const client = clientOf(key);
const greedy = { model, prompt, max_tokens: 16, temperature: 0 };

// The first requests of all, at once: one load serves them.
const first = await Promise.all([1, 2, 3].map(() => client.completions.create(greedy)));
same("the first requests, at once", first.map(({ choices }) => choices[0].text), [
  text,
  text,
  text,
]);

const ids = [];
for await (const { id } of client.models.list()) ids.push(id);
same("models.list", ids, [model]);

let streamed = "";
for await (const { choices } of await client.completions.create({ ...greedy, stream: true })) {
  streamed += choices[0]?.text ?? "";
}
same("streamed", streamed, text);

const schema = {
  type: "object",
  properties: { size: { enum: ["small", "large"] }, isOld: { type: "boolean" } },
  required: ["size", "isOld"],
  additionalProperties: false,
};
const { choices: [{ message }] } = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: prompt }],
  max_tokens: 100,
  response_format: { type: "json_schema", json_schema: { name: "town", schema, strict: true } },
});
const town = JSON.parse(message.content);
same("json_schema", [["small", "large"].includes(town.size), typeof town.isOld], [true, "boolean"]);

const refused = await clientOf("wrong").models.list().then(() => "let in", ({ status }) => status);
same("a wrong key", refused, 401);

let right = 0;
for (let i = 0; i < requests; i++) {
  const { choices } = await client.completions.create({ ...greedy, max_tokens: 4, seed: i });
  if (text.startsWith(choices[0].text) && choices[0].text !== "") right++;
}
same(`${requests} requests`, right, requests);

process.stdout.write(`${JSON.stringify({ version: VERSION, checks })}\n`);
