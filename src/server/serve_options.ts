/**
 * Options of the command `serve`: its flags, its config file and its environment come from this schema.
 * @module
 */
import { z } from "zod";
import { loadFields, servingFields } from "../generate/load_options.ts";
import { serverFields } from "./options.ts";

/** Options of the command `serve`. */
export const serveCommandSchema = z.strictObject({
  model: z.array(z.string().min(1)).min(1).optional().describe(
    "folders of compiled models or checkpoints (default: the example)",
  ),
  port: z.int().min(0).max(65_535).default(8080).describe("port; 0 takes any that is free"),
  host: z.string().min(1).default("127.0.0.1").describe(
    "address to listen on; 0.0.0.0 is all of this machine's",
  ),
  keyFile: z.string().min(1).optional().describe(
    "file with names and hashes of keys, as the command key writes it (default: no key is needed)",
  ),
  ...serverFields,
  drain: z.number().min(0).max(86_400).default(30).describe(
    "seconds in which requests may end after a signal to stop",
  ),
  log: z.enum(["text", "json"]).default("text").describe("form of the log, on standard error"),
  ...loadFields,
  keptSequences: servingFields.keptSequences.describe(
    "closed sequences whose cache the sparse engine keeps for prompts that begin alike (default: two for each " +
      "place of --parallel)",
  ),
});
