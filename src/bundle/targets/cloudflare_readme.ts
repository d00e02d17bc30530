/** The page that lies in a Worker's project. @module */

/** Its text. */
export function cloudflareReadme(name: string, context: number, parallel: number): string {
  return `# ${name} on Cloudflare Workers

\`\`\`sh
npm install
npm run dev           # try it: http://127.0.0.1:8787
npx wrangler deploy   # it then has an address of its own
\`\`\`

Clients of OpenAI's interface take that address with \`/v1\` as their base URL; a person opens it in a browser.

- **Keys**: without any, whoever knows the address may use the model. In a clone of Espalier, \`deno run -A mod.ts key --name till-3\` makes a key and prints a line for the server; \`npx wrangler secret put ESPALIER_KEYS\` takes such lines.
- **Plan**: Workers Paid. The free plan gives a request 10 ms of a processor; loading the model takes more.
- **Settled**: context ${context}, ${parallel} at once. The memory of a Worker was counted for that; bundle the model again to change it.
- **Variables** (\`vars\` in wrangler.jsonc): \`ESPALIER_QUEUE\`, \`ESPALIER_QUEUE_TIMEOUT\`, \`ESPALIER_REQUEST_TIMEOUT\`, \`ESPALIER_MAX_TOKENS\`, \`ESPALIER_PROMPT_LIMIT\`, \`ESPALIER_CORS\` and others, as \`serve\` has them.
- **The first request** of an isolate loads the model from the project's static assets; \`/ready\` does it without generating. Assets are not served to anybody: all requests go to the Worker (\`run_worker_first\`), which gives none away.
`;
}
