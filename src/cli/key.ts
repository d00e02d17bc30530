/**
 * `key`: the command.
 * @module
 */
import { z } from "zod";
import { UsageError } from "../errors.ts";
import { assertReplaceable, readText, replaceText } from "../platform/files.ts";
import { lockFile } from "../platform/lock.ts";
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
      await addKey(keyFile, name, entry);
      if (!line.json) say(`its hash is in ${keyFile}; the key is shown this once:`);
    }
    const sha256 = entry.split(" ")[1];
    print(line.json ? `${JSON.stringify({ name, key, sha256 })}\n` : `${key}\n`);
    return 0;
  },
};

/**
 * Adds a line to a key file, one process after the other: a key that another one's line had replaced is told once, and
 * never right.
 */
async function addKey(keyFile: string, name: string, entry: string): Promise<void> {
  assertReplaceable(keyFile);
  const lock = await lockFile(`${keyFile}.lock`);
  try {
    const former = exists(keyFile) ? readText(keyFile, LARGEST_KEY_FILE) : "";
    if (keysIn(former, keyFile).some((known) => known.name === name)) {
      throw new UsageError(`--name: ${keyFile} has a key of this name: take another one`);
    }
    replaceText(
      keyFile,
      `${former}${former === "" || former.endsWith("\n") ? "" : "\n"}${entry}\n`,
    );
  } finally {
    lock.release();
  }
}
