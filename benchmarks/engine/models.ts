/**
 * The files that the engines load, all made of one checkpoint, in the cache folder.
 * @module
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CompileReport } from "../../mod.ts";
import { VERSION } from "../../src/version.ts";
import { espalier, findRuntime, ROOT, runJson, type RuntimeName } from "../support/process.ts";
import { once, pythonIn } from "./packages.ts";

/** A model that an engine loads. */
export interface ModelFile {
  /** A file or a folder, as the engine takes it. */
  readonly path: string;
  /** Of the graph and its weights. */
  readonly bytes: number;
  /** Bytes of weights that a token reads; ours are told by the engine. */
  readonly tokenBytes?: number;
}

/** How our models are pruned: by Wanda, each block alike. */
export const OURS = {
  "dense": undefined,
  "8:16": ["--pattern", "8:16"],
  "4:16": ["--pattern", "4:16"],
  "70%": ["--sparsity", "0.7"],
} as const satisfies Record<string, readonly string[] | undefined>;
/** One of them. */
export type OursName = keyof typeof OURS;

/** What the engines but ours load. */
export type FileName = "model.onnx" | "model_quantized.onnx" | "model_q4.onnx" | GgufName;
type GgufName = "q4_0.gguf" | "q8_0.gguf";

const CALIBRATION = [
  ...["--calibration", join(ROOT, "examples", "tiny", "calibration.txt")],
  ...["--samples", "16", "--seqlen", "512"],
];

/** What `prepare/*.py` print. */
interface Prepared {
  readonly files: Record<string, { bytes: number; tokenBytes: number }>;
  readonly versions: Record<string, string>;
}

/** Makes models of a checkpoint; each once, those of our own compiler in every run. */
export class Models {
  readonly #checkpoint: string;
  readonly #cache: string;
  readonly #folder: string;
  readonly #runtime: RuntimeName;
  readonly #python: string | undefined;
  /** Programs that made files for others, with their versions. */
  readonly versions = new Map<string, string>();

  /**
   * @param checkpoint The model's folder.
   * @param cache Where everything made goes.
   * @param runtime What our own commands run in.
   * @param python An interpreter that has the packages; one is made in the cache when left out.
   */
  constructor(checkpoint: string, cache: string, runtime: RuntimeName, python?: string) {
    this.#checkpoint = checkpoint;
    this.#cache = cache;
    this.#runtime = runtime;
    this.#python = python;
    this.#folder = join(cache, "models", `${basename(checkpoint)}-${fingerprint(checkpoint)}`);
  }

  /** One of our models: pruned once, compiled anew, for the compiler is what changes. */
  async ours(name: OursName): Promise<ModelFile> {
    const title = name.replace(":", "-").replace("%", "");
    const how = OURS[name];
    const parent = join(this.#folder, `pruned-${title}-${VERSION}`);
    const pruned = how ? join(parent, "checkpoint") : this.#checkpoint;
    if (how) {
      await once(parent, async () => {
        const wanda = ["--method", "wanda", "--allocation", "uniform", ...how];
        await this.#espalier(["prune", this.#checkpoint, "-o", pruned, ...wanda, ...CALIBRATION]);
      });
    }
    const path = join(this.#folder, `ours-${title}`);
    const words = ["compile", pruned, "-o", path, "--force", "--values", "int8"];
    const { bytes } = await this.#espalier(words) as CompileReport;
    return { path, bytes: bytes.graph + bytes.data };
  }

  /** A file for others. */
  async file(name: FileName): Promise<ModelFile> {
    const isGguf = name.endsWith(".gguf");
    const { folder, made } = await (isGguf ? this.#gguf() : this.#onnx());
    for (const [program, version] of Object.entries(made.versions)) {
      this.versions.set(program, version);
    }
    return { path: join(folder, ...isGguf ? [] : ["onnx"], name), ...made.files[name] };
  }

  #onnx() {
    return this.#prepare("onnx", async (folder, prepare) => {
      const compiled = join(folder, "compiled");
      const dense = ["--format", "dense", "--values", "f32", "--logits", "last"];
      await this.#espalier(["compile", this.#checkpoint, "-o", compiled, ...dense]);
      // transformers.js finds a model below a folder by the folder's name.
      return await prepare(compiled, join(folder, "model"));
    });
  }

  #gguf() {
    return this.#prepare(
      "gguf",
      (folder, prepare) => prepare(this.#checkpoint, join(folder, "model")),
    );
  }

  /** Has one of our Python programs write files, unless it did before. */
  async #prepare(
    kind: "onnx" | "gguf",
    make: (
      folder: string,
      prepare: (from: string, to: string) => Promise<Prepared>,
    ) => Promise<Prepared>,
  ): Promise<{ folder: string; made: Prepared }> {
    const script = fileURLToPath(new URL(`prepare/${kind}_files.py`, import.meta.url));
    // Another program makes other files.
    const recipe = createHash("sha256").update(readFileSync(script)).digest("hex").slice(0, 8);
    const parent = join(this.#folder, `${kind}-${recipe}`);
    await once(parent, async () => {
      const python = this.#python ?? await pythonIn(this.#cache);
      const made = await make(
        parent,
        async (from, to) => (await runJson([python, script, from, to])).value as Prepared,
      );
      writeFileSync(join(parent, "made.json"), JSON.stringify(made));
    });
    const made = JSON.parse(readFileSync(join(parent, "made.json"), "utf8"));
    return { folder: join(parent, "model"), made };
  }

  /** Runs one of our own commands; its report. */
  async #espalier(words: readonly string[]): Promise<unknown> {
    const { path } = await findRuntime(this.#runtime);
    return (await runJson([...espalier(this.#runtime, path), ...words, "--json"])).value;
  }
}

/** Short, and another one when a file of the folder has changed. */
function fingerprint(folder: string): string {
  const files = readdirSync(folder).sort().map((name) => {
    const { size, mtimeMs } = statSync(join(folder, name));
    // Runtimes differ in the digits below.
    return [name, size, Math.floor(mtimeMs)];
  });
  return createHash("sha256").update(JSON.stringify(files)).digest("hex").slice(0, 8);
}
