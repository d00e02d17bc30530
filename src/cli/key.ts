/**
 * `key`: the command.
 * @module
 */
import { z } from "zod";
import { UsageError } from "../errors.ts";
import { readText, replaceText } from "../platform/files.ts";
import { exists } from "../platform/paths.ts";
import { print } from "../platform/output.ts";
import { keysIn, makeKey } from "../server/keys.ts";
import { keySchema } from "../server/options.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { say } from "./model.ts";

/** Bytes of the largest key file. */
const LARGEST_KEY_FILE = 1 << 20;

const keyCommandSchema = z.strictObject({
  name: keySchema.shape.name.describe("whom it is for; the server's log names it"),
  keyFile: z.string().min(1).optional().describe(
    "file to add its hash to; made where it is not there",
  ),
});

/** The `key` command. */
export const keyCommand: Command = {
  name: "key",
  summary: "Make a key for clients of serve.",
  usage: "key --name NAME [--key-file FILE]",
  schema: keyCommandSchema,
  details: [
    "The key goes to standard output, once: only its hash is kept. Without --key-file the line for",
    "the file goes to standard error. To take a key back, delete its line and start the server again.",
    "With --json: name, key, sha256.",
  ].join("\n"),
  examples: [["key --name till-3 --key-file keys.txt", "a key for one more client"]],
  run: async (words) => {
    const line = readCommandLine(words, keyCommandSchema, { modelIsOptional: true });
    const { name, keyFile } = checkOptions(keyCommandSchema, line.options, line.sources);
    const { key, line: entry } = await makeKey(name);
    if (keyFile === undefined) {
      if (!line.json) say(`for the key file: ${entry}`);
    } else {
      const former = exists(keyFile) ? readText(keyFile, LARGEST_KEY_FILE) : "";
      if (keysIn(former, keyFile).some((known) => known.name === name)) {
        throw new UsageError(`--name: ${keyFile} has a key of this name: take another one`);
      }
      replaceText(
        keyFile,
        `${former}${former === "" || former.endsWith("\n") ? "" : "\n"}${entry}\n`,
      );
      if (!line.json) say(`its hash is in ${keyFile}; the key is shown this once:`);
    }
    const sha256 = entry.split(" ")[1];
    print(line.json ? `${JSON.stringify({ name, key, sha256 })}\n` : `${key}\n`);
    return 0;
  },
};
