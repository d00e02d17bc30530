/**
 * Text files for calibration and evaluation: plain text, lines of JSON, or token ids as they are.
 * @module
 */
import { z } from "zod";
import { TextError } from "../errors.ts";
import { readJson, readText } from "../platform/files.ts";

/** Bytes of the largest text file that is read. */
const LARGEST_TEXT = 512 << 20;

/** What a file holds. */
export type Corpus =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "windows"; readonly windows: Int32Array[] };

const lineSchema = z.looseObject({ text: z.string() });
const windowsSchema = z.looseObject({
  windows: z.array(z.array(z.number().int().nonnegative().max(0x7fffffff)).min(2)).min(1),
});

/**
 * Reads a corpus, its form told by the end of its name, in capital letters or small: `.jsonl` (a `text` field a
 * line, documents joined by blank lines), `.json` (`{"windows": [[token ids] …]}`), anything else as plain text.
 *
 * @throws {TextError} When it has not that form.
 * @throws {FileReadError} When it cannot be read.
 */
export function readCorpus(path: string): Corpus {
  if (fixesWindows(path)) return { kind: "windows", windows: readWindows(path) };
  const text = readText(path, LARGEST_TEXT);
  if (!path.toLowerCase().endsWith(".jsonl")) return { kind: "text", text };
  const documents: string[] = [];
  text.split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    let parsed: unknown;
    try {
      parsed = JSON.parse(line);
    } catch (cause) {
      throw new TextError(`${path}, line ${i + 1}: not valid JSON`, { cause });
    }
    const document = lineSchema.safeParse(parsed);
    if (!document.success) {
      throw new TextError(`${path}, line ${i + 1}: no field "text" that holds a string`);
    }
    documents.push(document.data.text);
  });
  return { kind: "text", text: documents.join("\n\n") };
}

/** Whether a corpus holds windows of token ids, told by the end of its name. */
export function fixesWindows(path: string): boolean {
  return path.toLowerCase().endsWith(".json");
}

function readWindows(path: string): Int32Array[] {
  const parsed = windowsSchema.safeParse(readJson(path, LARGEST_TEXT));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new TextError(
      `${path}: {"windows": [[token ids] …]} was expected, ${
        issue.path.join(".") || "it"
      }: ${issue.message}`,
    );
  }
  const windows = parsed.data.windows.map((window) => Int32Array.from(window));
  const odd = windows.findIndex((window) => window.length !== windows[0].length);
  if (odd >= 0) {
    throw new TextError(
      `${path}: window ${odd} has ${windows[odd].length} tokens, window 0 has ${
        windows[0].length
      }; all must be of one length`,
    );
  }
  return windows;
}
