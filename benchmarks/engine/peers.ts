/**
 * What is measured: our engine, and those of others.
 * @module
 */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { findProgram, findRuntime, ProgramError, type RuntimeName } from "../support/process.ts";
import type { EngineConfig } from "./adapters/engine.ts";
import { type FileName, type ModelFile, type Models, OURS, type OursName } from "./models.ts";
import { npmFolder } from "./packages.ts";

const ORT_NODE = ["onnxruntime-node@1.30.0"];
const TRANSFORMERS = ["@huggingface/transformers@4.3.1"];
const PLAYWRIGHT = "playwright-core@1.65.1";
const NODE_LLAMA = ["node-llama-cpp@3.22.1"];
/** What node-llama-cpp brings for this machine; it would also bring builds for GPUs. */
const NODE_LLAMA_BUILD = `@node-llama-cpp/${nodeLlamaBuild()}@3.22.1`;
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];

function nodeLlamaBuild(): string {
  const { platform, arch } = process;
  if (platform === "darwin") return arch === "arm64" ? "mac-arm64-metal" : "mac-x64";
  return `${platform === "win32" ? "win" : "linux"}-${arch}`;
}

/** A peer: how it is run, on which file. */
interface Peer {
  /** Below `adapters/`. */
  readonly adapter: string;
  /** Where it runs: in the runtime that ours runs in, in Node, or in a page that Node opens. */
  readonly host: "own" | "node" | "page";
  readonly variant?: string;
  readonly file: FileName;
  /** transformers.js takes a model's folder. */
  readonly takesFolder?: boolean;
  /** From npm; those of the project itself need none. */
  readonly packages?: readonly string[];
  /** Without their optional dependencies. */
  readonly lean?: boolean;
}

const ort = (variant: "wasm" | "node", file: FileName): Peer => ({
  adapter: "ort.ts",
  host: "own",
  variant,
  file,
  packages: variant === "node" ? ORT_NODE : undefined,
});
const ortWebInNode = (file: FileName): Peer => ({ ...ort("wasm", file), host: "node" });
const transformers = (variant: string, file: FileName): Peer => ({
  adapter: "transformers.mjs",
  host: "node",
  variant,
  file,
  takesFolder: true,
  packages: TRANSFORMERS,
});
const transformersPage = (variant: string, file: FileName): Peer => ({
  adapter: "browser.mjs",
  host: "page",
  variant: `transformers ${variant}`,
  file,
  takesFolder: true,
  packages: [...TRANSFORMERS, PLAYWRIGHT],
});
const wllama = (file: FileName): Peer => ({
  adapter: "browser.mjs",
  host: "page",
  variant: "wllama",
  file,
  packages: ["@wllama/wllama@3.13.0", PLAYWRIGHT],
});
const nodeLlama = (file: FileName): Peer => ({
  adapter: "node_llama.mjs",
  host: "node",
  file,
  packages: [...NODE_LLAMA, NODE_LLAMA_BUILD],
  lean: true,
});

const PEERS = {
  "ort-web-f32": ort("wasm", "model.onnx"),
  "ort-web-int8": ort("wasm", "model_quantized.onnx"),
  "ort-web-int4": ort("wasm", "model_q4.onnx"),
  "ort-web-f32-node": ortWebInNode("model.onnx"),
  "ort-web-int8-node": ortWebInNode("model_quantized.onnx"),
  "ort-node-f32": ort("node", "model.onnx"),
  "ort-node-int8": ort("node", "model_quantized.onnx"),
  "ort-node-int4": ort("node", "model_q4.onnx"),
  "transformers-node-f32": transformers("fp32", "model.onnx"),
  "transformers-node-q8": transformers("q8", "model_quantized.onnx"),
  "transformers-page-f32": transformersPage("fp32", "model.onnx"),
  "transformers-page-q8": transformersPage("q8", "model_quantized.onnx"),
  "wllama-q4_0": wllama("q4_0.gguf"),
  "wllama-q8_0": wllama("q8_0.gguf"),
  "node-llama-q4_0": nodeLlama("q4_0.gguf"),
  "node-llama-q8_0": nodeLlama("q8_0.gguf"),
} satisfies Record<string, Peer>;

/** One of the peers. */
export type PeerName = keyof typeof PEERS;
/** All of them. */
export const PEER_NAMES = Object.keys(PEERS) as PeerName[];
/** All of ours. */
export const OURS_NAMES = Object.keys(OURS) as OursName[];
/** Those that compute in float32, and so must say the same. */
export const FLOAT32: readonly string[] = PEER_NAMES.filter((name) => name.includes("-f32"));

/** Something that can be started: what `Child.start` takes, but for the threads. */
export interface Startable {
  readonly runtime: readonly string[];
  readonly adapter: string;
  readonly config: Omit<EngineConfig, "threads" | "context">;
  readonly file: ModelFile;
}

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/**
 * Makes one of our models ready.
 *
 * @throws {ProgramError} When it cannot be made.
 */
export async function prepareOurs(
  name: OursName,
  models: Models,
  runtime: RuntimeName,
): Promise<Startable> {
  const file = await models.ours(name);
  return {
    runtime: await own(runtime),
    adapter: path("ours.ts"),
    config: { model: file.path },
    file,
  };
}

/**
 * Makes one of our models ready to be run by Node, from what is built for it.
 *
 * @throws {ProgramError} When it cannot be made, or nothing has been built.
 */
export async function prepareOursInNode(name: OursName, models: Models): Promise<Startable> {
  if (!existsSync(path("../../dist/run.js"))) throw new ProgramError("run `bun run build` first");
  const file = await models.ours(name);
  return {
    runtime: [await needed(["node"])],
    adapter: path("ours_node.mjs"),
    config: { model: file.path },
    file,
  };
}

/**
 * Makes a peer ready: what it runs in, its packages, its file.
 *
 * @throws {ProgramError} When one of them is not to be had.
 */
export async function preparePeer(
  name: PeerName,
  models: Models,
  runtime: RuntimeName,
  cache: string,
): Promise<Startable> {
  const { adapter, host, variant, file: fileName, takesFolder, packages, lean }: Peer = PEERS[name];
  const words = host === "own" ? await own(runtime) : [await needed(["node"])];
  const chromium = host === "page" ? await needed(BROWSERS) : undefined;
  const installed = packages ? await npmFolder(cache, packages, !lean) : undefined;
  const file = await models.file(fileName);
  return {
    runtime: words,
    adapter: path(`adapters/${adapter}`),
    config: {
      model: takesFolder ? dirname(dirname(file.path)) : file.path,
      packages: installed,
      variant,
      chromium,
    },
    file,
  };
}

/** Words that start a program in the runtime that ours runs in. */
async function own(runtime: RuntimeName): Promise<string[]> {
  const { path } = await findRuntime(runtime);
  return runtime === "deno" ? [path, "run", "-A"] : [path];
}

/** Where a program lies. */
async function needed(names: readonly string[]): Promise<string> {
  const found = await findProgram(names);
  if (!found) throw new ProgramError(`no ${names[0]} on PATH`);
  return found;
}
