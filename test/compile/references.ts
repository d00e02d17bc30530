/**
 * What ONNX Runtime makes of compiled models, computed once for equal files: to open a session takes three times
 * as long as to compile a small model and to run it in our own engine.
 * @module
 */
import { createHash } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { compiledLogits } from "./support.ts";

/** Where one run of all tests keeps them, for other files and the other runtime; see `scripts/test.ts`. */
const SHARED = process.env.ESPALIER_TEST_REFERENCES;

const known = new Map<string, Promise<Float32Array>>();

/** The logits of {@linkcode compiledLogits}. Do not change them. */
export function referenceLogits(folder: string): Promise<Float32Array> {
  const hash = createHash("sha256");
  for (const file of ["model.onnx", "model.onnx_data"]) {
    hash.update(readFileSync(join(folder, "onnx", file)));
  }
  const key = hash.digest("hex");
  const logits = known.get(key) ?? shared(key, folder);
  known.set(key, logits);
  return logits;
}

async function shared(key: string, folder: string): Promise<Float32Array> {
  if (SHARED === undefined) return await compiledLogits(folder);
  const path = join(SHARED, key);
  try {
    return new Float32Array(Uint8Array.from(readFileSync(path)).buffer);
  } catch {
    // Nobody has needed them yet.
  }
  const logits = await compiledLogits(folder);
  const pending = `${path}.${process.pid}`;
  writeFileSync(pending, new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength));
  renameSync(pending, path);
  return logits;
}
