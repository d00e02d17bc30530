/** SHA-256 of bytes in memory, in every runtime. Files on this machine: `hash.ts`. @module */
import { builtinNow } from "./builtin.ts";

/** What is used of `node:crypto`. */
interface NodeCrypto {
  createHash(algorithm: "sha256"): {
    update(bytes: Uint8Array): { digest(encoding: "hex"): string };
  };
}

const node = builtinNow<NodeCrypto>("node:crypto");

/** Bytes in hexadecimal. */
export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The SHA-256 of bytes, in hexadecimal.
 *
 * By `node:crypto` where there is one: `crypto.subtle` hashes a copy, and copies of a model's pieces are
 * garbage that lies about for long.
 */
export async function sha256Of(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  if (node) return node.createHash("sha256").update(bytes).digest("hex");
  return hexOf(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}
