/**
 * Greedy generation for engines that give logits: the loop that their users write.
 * @module
 */
import type { EngineModel } from "../../../src/engine/model.ts";
import type { Engine, Generated } from "./engine.ts";

/** A sequence with its cache. */
export interface Steps {
  /** Runs tokens after those in the cache; the likeliest next one. */
  run(tokens: readonly number[]): Promise<number>;
  /** Remembers this place; what is returned goes back to it. */
  mark(): () => void;
  close(): void;
}

/**
 * Makes an engine of sequences.
 *
 * @param product Its name and version.
 * @param begin Opens an empty sequence.
 * @param close Frees everything.
 */
export function engineOfSteps(
  product: string,
  begin: () => Steps,
  close: () => Promise<void>,
): Engine {
  let held: { steps: Steps; first: number; back: () => void } | undefined;
  return {
    product,
    async generate(prompt, steps) {
      const sequence = begin();
      try {
        const first = await timed(sequence, prompt.tokens);
        return join(first, await go(sequence, first.tokens[0], steps));
      } finally {
        sequence.close();
      }
    },
    async hold(prompt) {
      held?.steps.close();
      const sequence = begin();
      const first = await timed(sequence, prompt.tokens);
      held = { steps: sequence, first: first.tokens[0], back: sequence.mark() };
      return first;
    },
    async resume(steps) {
      if (!held) throw new Error("nothing is held");
      held.back();
      return await go(held.steps, held.first, steps);
    },
    close,
  };
}

/**
 * Our own engine. A step is `run`, which is told that only the largest logit matters, and says which that is: as
 * `generate` does.
 *
 * @param version Its name and version.
 */
export function engineOfOurs(
  version: string,
  model: Pick<EngineModel, "info" | "open" | "close">,
): Engine {
  const begin = () => {
    const sequence = model.open();
    return {
      run: async (tokens: readonly number[]) => {
        const logits = await sequence.run(tokens, { within: 0 });
        return sequence.likeliest ?? likeliest(logits);
      },
      mark() {
        const { length } = sequence;
        return () => sequence.truncate(length);
      },
      close: () => sequence.close(),
    };
  };
  const { device, tokenBytes, weightBytes } = model.info;
  return {
    ...engineOfSteps(`${version}, ${device}`, begin, () => model.close()),
    tokenBytes: tokenBytes ?? weightBytes,
  };
}

/** The likeliest token, by a user's own loop. */
export function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

async function timed(sequence: Steps, tokens: readonly number[]): Promise<Generated> {
  const start = performance.now();
  const token = await sequence.run(tokens);
  return { tokens: [token], seconds: [(performance.now() - start) / 1000] };
}

async function go(sequence: Steps, first: number, steps: number): Promise<Generated> {
  const all: Generated = { tokens: [], seconds: [] };
  let last = first;
  for (let i = 0; i < steps; i++) {
    const { tokens, seconds } = await timed(sequence, [last]);
    all.tokens.push(...tokens);
    all.seconds.push(...seconds);
    last = tokens[0];
  }
  return all;
}

function join(a: Generated, b: Generated): Generated {
  return { tokens: [...a.tokens, ...b.tokens], seconds: [...a.seconds, ...b.seconds] };
}
