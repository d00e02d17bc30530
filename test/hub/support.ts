/** What the tests of the Hub share: a model, settings, a look at the cache. @module */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { ProgressEvent } from "../../src/api/options.ts";
import { type PullReport, pullWith } from "../../src/hub/pull.ts";
import { parseReference } from "../../src/hub/reference.ts";
import type { HubSettings } from "../../src/hub/settings.ts";
import { type FakeFile, type FakeHub, file, noise } from "./fake_hub.ts";

export const WORD = "hf:some-owner/some-model";
/** Bytes of the weights in tests. */
export const WEIGHTS = 400_000;

/** A checkpoint, as far as the Hub is concerned. */
export function checkpointFiles(): FakeFile[] {
  return [
    file("README.md", "# A model"),
    file("config.json", '{"model_type":"llama"}'),
    file("generation_config.json", "{}"),
    file("model.safetensors", noise(WEIGHTS), true),
    file("tokenizer.json", noise(50_000, 2), true),
    file("tokenizer_config.json", "{ }"),
  ];
}

/** Paths that are fetched of {@linkcode checkpointFiles}. */
export const NEEDED = [
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
];

/** Settings for a Hub of tests, quick to lose patience. */
export function settingsFor(
  hub: FakeHub,
  cache: string,
  more: Partial<HubSettings> = {},
): HubSettings {
  return { endpoint: hub.url, cache, offline: false, patience: 2000, backoff: 5, ...more };
}

/** A pull, and what it told. */
export async function pullFrom(
  settings: HubSettings,
  options: {
    readonly word?: string;
    readonly output?: string;
    readonly force?: boolean;
    readonly signal?: AbortSignal;
    readonly onProgress?: (event: ProgressEvent) => void;
  } = {},
): Promise<PullReport & { events: ProgressEvent[] }> {
  const { word = WORD, output, force = false, signal, onProgress } = options;
  const events: ProgressEvent[] = [];
  const tell = (event: ProgressEvent) => {
    events.push(event);
    onProgress?.(event);
  };
  const hooks = { signal, onProgress: tell };
  const report = await pullWith(settings, parseReference(word), { output, force }, hooks);
  return { ...report, events };
}

/** What lies in `blobs` of the repository, and in its `.locks`. */
export function leftIn(cache: string): { blobs: string[]; locks: string[] } {
  const name = "models--some-owner--some-model";
  const list = (path: string) => existsSync(path) ? readdirSync(path).sort() : [];
  return { blobs: list(join(cache, name, "blobs")), locks: list(join(cache, ".locks", name)) };
}
