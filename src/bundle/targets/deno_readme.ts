/** The page that lies in a bundle for Deno. @module */

/** Its text. */
export function denoReadme(name: string): string {
  return `# ${name} for Deno

\`\`\`sh
deno task start      # http://127.0.0.1:8080
deno task serve      # the same by deno serve, which has its own --host and --port
deno task compile    # one binary: ./model-server
\`\`\`

It needs Deno and nothing else: no package is fetched. What it may do stands in deno.json: use the network, read this folder, and see its own variables.

- **Deno Deploy**: put this folder into a repository or upload it with Deno's tool; the entry point is \`main.js\`. A program has 512 MB there. Where there are no threads, the engine computes on one.
- **Address**: \`ESPALIER_HOST\` (default 127.0.0.1) and \`ESPALIER_PORT\` (8080). On this machine alone and without keys it answers only to \`localhost\` and addresses; behind a proxy, \`ESPALIER_ALLOW_HOST\` has the names that it is asked by.
- **Keys**: \`ESPALIER_KEYS\` holds lines that \`deno run -A mod.ts key --name till-3\` prints, in a clone of Espalier; without it whoever reaches the address may use the model.
- **Other variables**: \`ESPALIER_QUEUE\`, \`ESPALIER_QUEUE_TIMEOUT\`, \`ESPALIER_REQUEST_TIMEOUT\`, \`ESPALIER_MAX_TOKENS\`, \`ESPALIER_PROMPT_LIMIT\`, \`ESPALIER_CORS\` and others, as \`serve\` has them.

Clients of OpenAI's interface take the address with \`/v1\` as their base URL; a person opens it in a browser.
`;
}
