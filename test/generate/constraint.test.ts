import { describe, expect, test } from "bun:test";
import { AbortError, UsageError } from "../../src/errors.ts";
import { generate } from "../../src/generate/generate.ts";
import type { TokenConstraint } from "../../src/text/constraint.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { babbler, END, PROMPT, PROMPT_IDS, take, text, tokenizer, VOCABULARY } from "./support.ts";

/** Allows one text, and an end of text after some of its tokens. */
class OneText implements TokenConstraint {
  readonly #ids: readonly number[];
  #at = 0;
  #ended = false;
  constructor(text: string, private readonly endsAt: readonly number[] = []) {
    this.#ids = [...tokenizer.encode(text)];
  }
  get begun() {
    return this.#at > 0 || this.#ended;
  }
  get complete() {
    return this.#ended || this.#at === this.#ids.length;
  }
  allowed() {
    const mask = new Uint32Array(VOCABULARY / 32);
    for (const id of this.endsAt.includes(this.#at) ? [END] : [this.#ids[this.#at]]) {
      mask[id >>> 5] |= 1 << (id & 31);
    }
    return mask;
  }
  take(token: number) {
    if (token === END) this.#ended = true;
    else this.#at++;
  }
}

describe("a generation with a constraint", () => {
  test("has the text that is allowed, and ends where it is complete", async () => {
    const answer = ' {"river": "🌳 long"}';
    for (const options of [{}, { temperature: 1.5, seed: 2 }, { ignoreEos: true }]) {
      const constraint = new OneText(answer);
      const outcome = await take(generate(babbler(), text, PROMPT, { ...options, constraint }));
      expect(outcome.text).toBe(answer);
      expect(outcome.end.finishReason).toBe("stop");
      expect(outcome.tokens).toEqual([...tokenizer.encode(answer)]);
    }
  });

  test("ends with an end of text where that is allowed, also when ends are ignored", async () => {
    for (const ignoreEos of [false, true]) {
      const constraint = new OneText(" is long", [1]);
      const { tokens, end, text: written } = await take(
        generate(babbler(), text, PROMPT, { ignoreEos, constraint }),
      );
      expect(tokens).toEqual([tokenizer.encode(" is long")[0], END]);
      expect(written).toBe(tokenizer.decode(tokens.slice(0, 1)));
      expect(end.finishReason).toBe("stop");
    }
  });

  test("has no end of text in its own, also where the tokenizer writes that out", async () => {
    const written = Object.create(tokenizer, {
      specialIds: { value: new Set() },
      bytesOf: { value: (id: number) => tokenizer.bytesOf(id) },
      leadingSpaces: { value: 0 },
      endIds: { value: tokenizer.endIds },
    }) as typeof tokenizer;
    for (const ignoreEos of [false, true]) {
      const constraint = new OneText(" is long", [1]);
      const outcome = await take(
        generate(babbler(), { ...text, tokenizer: written }, PROMPT_IDS, { ignoreEos, constraint }),
      );
      expect(outcome.tokens.at(-1)).toBe(END);
      expect(outcome.text).toBe(tokenizer.decode(outcome.tokens.slice(0, 1)));
    }
  });

  test("that ran out of tokens says so", async () => {
    const constraint = new OneText(" is long and wide");
    const { end } = await take(generate(babbler(), text, PROMPT, { maxTokens: 2, constraint }));
    expect(end.finishReason).toBe("length");
  });

  test("refuses one that has served another text", async () => {
    const constraint = new OneText(" is");
    const waiting = generate(babbler(), text, PROMPT, { constraint });
    await take(generate(babbler(), text, PROMPT, { constraint }));
    const error = thrownBy(() => generate(babbler(), text, PROMPT, { constraint }));
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toContain("another one for each");
    await expect(take(waiting)).rejects.toBeInstanceOf(UsageError);
  });

  test("refuses what is none, before anything is opened for it", () => {
    // As a script writes it: the name of a schema, a promise that was not waited for.
    for (const wrong of ["json", 1, {}, null, Promise.resolve(new OneText(" is"))]) {
      const constraint = wrong as unknown as TokenConstraint;
      const error = thrownBy(() => generate(babbler(), text, PROMPT, { constraint }));
      expect(error).toBeInstanceOf(UsageError);
      expect(error.message).toContain("await model.constrain");
    }
  });

  test("refuses one that serves another text, also before that has a token", async () => {
    const constraint = new OneText(" is long");
    const [first, second] = [1, 2].map(() => generate(babbler(), text, PROMPT, { constraint }));
    const serving = take(first);
    await expect(take(second)).rejects.toBeInstanceOf(UsageError);
    expect((await serving).text).toBe(" is long");
  });

  test("leaves one free that it has not asked for a token", async () => {
    const constraint = new OneText(" is long");
    const stop = new AbortController();
    const stopped = take(generate(babbler(), text, PROMPT, { constraint, signal: stop.signal }));
    stop.abort();
    await expect(stopped).rejects.toBeInstanceOf(AbortError);
    const { text: written } = await take(generate(babbler(), text, PROMPT, { constraint }));
    expect(written).toBe(" is long");
  });
});
