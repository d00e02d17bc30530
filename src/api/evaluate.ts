/**
 * `evaluate`: the perplexity of a checkpoint on a text.
 * @module
 */
import { evaluateWindows } from "../evaluate/perplexity.ts";
import { peakResidentBytes } from "../platform/runtime.ts";
import { type EvaluateOptions, evaluateSchema, parseOptions, type RunHooks } from "./options.ts";
import { evaluationWindows, OpenModel, Phases, roomFor, windowLength } from "./shared.ts";

/** What `evaluate` found. */
export interface EvaluateReport {
  readonly model: string;
  readonly text: string;
  /** exp of the mean loss. */
  readonly perplexity: number;
  /** Mean negative log-likelihood of each window, in nats. */
  readonly losses: number[];
  readonly windows: number;
  /** Tokens in all windows. */
  readonly tokens: number;
  /** Tokens a window. */
  readonly seqlen: number;
  readonly backend: string;
  readonly notes: string[];
  readonly seconds: number;
  readonly peakBytes: number;
}

/**
 * Measures perplexity: exp of the mean over windows of the mean loss of their tokens but the first,
 * over consecutive windows that do not overlap (the released code's `eval_ppl_dataset`).
 *
 * @param options See `deno run mod.ts eval --help`.
 * @param hooks Progress and abort.
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export async function evaluate(
  options: EvaluateOptions,
  hooks: RunHooks = {},
): Promise<EvaluateReport> {
  const settings = parseOptions(evaluateSchema, options);
  const phases = new Phases(hooks);
  const opened = new OpenModel(settings.model);
  try {
    const source = opened.read(settings.text);
    const { spec } = opened;
    const length = windowLength(settings.seqlen, spec.context, source, (text) => phases.note(text));
    const windows = evaluationWindows(source, length, spec.vocabulary, settings.windows);
    const { memory, threads } = settings;
    const backend = await opened.openBackend(settings.backend, threads, { length, memory });
    const model = opened.stage(backend, length);
    const states = roomFor(model, spec, windows, memory);
    try {
      const { perplexity, losses } = await phases.run(
        "evaluate",
        "blocks",
        model.blocks.length + 1,
        (step) => evaluateWindows(model, states, step, hooks.signal),
      );
      return {
        model: opened.checkpoint.name,
        text: settings.text,
        perplexity,
        losses: [...losses],
        windows: windows.length,
        tokens: windows.length * length,
        seqlen: length,
        backend: backend.label,
        notes: phases.notes,
        seconds: phases.seconds.evaluate,
        peakBytes: peakResidentBytes(),
      };
    } finally {
      states.close();
      await model.close();
    }
  } finally {
    opened.checkpoint.close();
  }
}
