/**
 * `pull`: the command, and models of the Hub for the commands that read folders.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { localFolder } from "../hub/local_folder.ts";
import { pull, type PullReport, pullSchema } from "../hub/pull.ts";
import { print } from "../platform/output.ts";
import { pathWord } from "../platform/shell.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import { type Command, program } from "./help.ts";
import { formatBytes, formatSeconds, ProgressView } from "./terminal.ts";

/** The `pull` command. */
export const pullCommand: Command = {
  name: "pull",
  summary: "Fetch a model from the Hugging Face Hub.",
  usage: "pull hf:OWNER/NAME[@REVISION] [-o DIR]",
  schema: pullSchema,
  details: [
    "Only what a model needs is fetched: config, tokenizer, and weights in safetensors or as compiled",
    "ONNX. It goes to the cache that all clients of the Hub share; -o copies it to a folder of its own.",
    "After Ctrl-C or a broken connection the same command goes on where it ended. Commands that take",
    "the folder of a model also take hf:OWNER/NAME, and fetch what they lack.",
    "Variables: HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, and HF_HUB_OFFLINE=1 (cache only).",
    "With --json: model, revision [the commit], folder, files [{path, bytes, sha256, from}], seconds.",
  ].join("\n"),
  examples: [
    ["pull hf:HuggingFaceTB/SmolLM2-135M", "to the cache"],
    ["pull hf:HuggingFaceTB/SmolLM2-135M@main -o SmolLM2-135M", "to a folder"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, pullSchema);
    const options = checkOptions(pullSchema, line.options, line.sources);
    const view = new ProgressView();
    const report = await pull(options, { signal, onProgress: (event) => view.show(event) })
      .finally(() => view.finish());
    print(`${line.json ? JSON.stringify(report) : describe(report)}\n`);
    return 0;
  },
};

/** Options of a command with folders of this machine in place of models of the Hub. */
export async function withFolders<T extends Readonly<Record<string, unknown>>>(
  options: T,
  hooks: RunHooks,
): Promise<T> {
  const changed: Record<string, unknown> = { ...options };
  for (const field of ["model", "against"]) {
    const word = options[field];
    if (typeof word === "string") changed[field] = await localFolder(word, hooks);
  }
  return changed as T;
}

function describe({ model, revision, folder, files, seconds }: PullReport): string {
  const fetched = files.filter(({ from }) => from === "network");
  const bytes = (some: PullReport["files"]) =>
    formatBytes(some.reduce((sum, file) => sum + file.bytes, 0));
  const what = fetched.length === 0
    ? "all of it was in the cache"
    : `${fetched.length} of them fetched (${bytes(fetched)}) in ${formatSeconds(seconds)}`;
  return [
    `${model} at ${revision}: ${files.length} files (${bytes(files)}), ${what}`,
    folder,
    `look at it: ${program()} inspect ${pathWord(folder)}`,
  ].join("\n");
}
