/**
 * Log probabilities in the two forms of OpenAI's interface.
 * @module
 */
import type { TextPiece } from "../generate/generate.ts";
import type { Model } from "../generate/model.ts";
import type { TokenLogprob } from "../text/logprobs.ts";
import type { ChatLogprobs } from "./schemas/chat.ts";
import type { CompletionLogprobs } from "./schemas/completions.ts";

/** OpenAI's word for "impossible": JSON has no −∞. */
const LEAST = -9999;

// A byte order mark is text as any other.
const spelled = new TextDecoder("utf-8", { ignoreBOM: true });

/** Of a piece of a conversation's answer. */
export function chatLogprobs(model: Model, { logprobs }: TextPiece): ChatLogprobs {
  const entry = ({ token, logprob }: TokenLogprob) => {
    const bytes = model.bytes(token);
    return { token: spelled.decode(bytes), logprob: finite(logprob), bytes: [...bytes] };
  };
  return {
    content: (logprobs ?? []).map((choice) => ({
      ...entry(choice),
      top_logprobs: choice.top.map(entry),
    })),
    refusal: null,
  };
}

/**
 * Of a piece of a text.
 *
 * @param offset UTF-16 units of the answer before the piece. Tokens without text, or with a part of a
 *   character, count with what they decode to alone.
 */
export function completionLogprobs(
  model: Model,
  { logprobs = [], carried = 0 }: TextPiece,
  alternatives: number,
  offset: number,
): CompletionLogprobs {
  const word = (token: number) => spelled.decode(model.bytes(token));
  const tokens = logprobs.map(({ token }) => word(token));
  let at = offset + carried;
  return {
    tokens,
    token_logprobs: logprobs.map(({ logprob }) => finite(logprob)),
    top_logprobs: alternatives === 0 ? null : logprobs.map(({ token, logprob, top }) => {
      const told = new Map<string, number>();
      // The one that was chosen is always there, be it likely or not: one more than was asked for, then.
      for (const { token: one, logprob: its } of [...top, { token, logprob }]) {
        const text = word(one);
        // Of tokens that look the same, as parts of characters do, the likeliest.
        if (!told.has(text)) told.set(text, finite(its));
      }
      return Object.fromEntries(told);
    }),
    text_offset: tokens.map((text) => {
      at += text.length;
      return at - text.length;
    }),
  };
}

function finite(logprob: number): number {
  // Rounding may put a certain token's a little above 0.
  return Math.min(0, Math.max(LEAST, logprob));
}
