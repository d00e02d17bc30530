/**
 * What is put around a text, as the library for Python does.
 * @module
 */
import type { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { unusable } from "./unusable.ts";

const templateSchema = z.looseObject({
  special_tokens: z.record(
    z.string(),
    z.looseObject({ ids: z.array(z.int().nonnegative()) }),
  ),
  single: z.array(z.looseObject({
    SpecialToken: z.looseObject({ id: z.string() }).optional(),
  })),
});
const processorsSchema = z.looseObject({ processors: z.array(z.unknown()) });

/**
 * Makes a post-processor of the package add the tokens whose ids its file has: it takes their names for what they are
 * spelled as.
 *
 * @param processor Of `@huggingface/tokenizers`; changed in place.
 * @param config What it was made of: `post_processor` of `tokenizer.json`.
 * @throws {TokenizerError} When there is no token with such an id.
 */
export function spellTokens(hub: HubTokenizer, processor: unknown, config: unknown): void {
  const sequence = processorsSchema.safeParse(config);
  const { processors = [] } = (processor ?? {}) as { processors?: unknown[] };
  if (sequence.success) {
    processors.forEach((one, i) => spellTokens(hub, one, sequence.data.processors[i]));
    return;
  }
  const template = templateSchema.safeParse(config);
  if (!processor || !template.success) return;
  const { special_tokens, single } = template.data;
  const items = single.flatMap<unknown>((item) => {
    const { SpecialToken: special } = item;
    if (!special || !Object.hasOwn(special_tokens, special.id)) return [item];
    return special_tokens[special.id].ids.map((id) => ({
      SpecialToken: { ...special, id: spelled(hub, id) },
    }));
  });
  Object.assign(processor, { config: { ...template.data, single: items } });
}

function spelled(hub: HubTokenizer, id: number): string {
  const token: string | undefined = hub.id_to_token(id);
  if (token !== undefined) return token;
  throw unusable(`its post_processor adds token ${id}, which its vocabulary has not`);
}
