/**
 * `POST /tokenize` and `/detokenize`
 * @module
 */
import { createRoute } from "@hono/zod-openapi";
import { MOST_PER_TOKEN } from "../answers.ts";
import type { App } from "../context.ts";
import { wellFormed } from "../conversation.ts";
import { badRequest } from "../errors.ts";
import { errorResponses } from "../schemas/common.ts";
import {
  detokenizeRequestSchema,
  detokenizeResponseSchema,
  tokenizeRequestSchema,
  tokenizeResponseSchema,
} from "../schemas/tokens.ts";
import type { Service } from "../service.ts";

const tokenize = createRoute({
  method: "post",
  path: "/tokenize",
  tags: ["tokens"],
  summary: "The tokens of a text",
  request: {
    body: { required: true, content: { "application/json": { schema: tokenizeRequestSchema } } },
  },
  responses: {
    200: {
      description: "Token ids",
      content: { "application/json": { schema: tokenizeResponseSchema } },
    },
    ...errorResponses,
  },
});

const detokenize = createRoute({
  method: "post",
  path: "/detokenize",
  tags: ["tokens"],
  summary: "The text of tokens",
  request: {
    body: { required: true, content: { "application/json": { schema: detokenizeRequestSchema } } },
  },
  responses: {
    200: {
      description: "Text",
      content: { "application/json": { schema: detokenizeResponseSchema } },
    },
    ...errorResponses,
  },
});

/** Adds the routes. */
export function addTokens(app: App, service: Service): void {
  app.openapi(tokenize, (context) => {
    const request = context.req.valid("json");
    const { model } = service.find(request.model);
    const most = model.info.context * MOST_PER_TOKEN;
    if (request.prompt.length > most) {
      throw badRequest(
        `prompt: ${request.prompt.length} characters are more than any sequence holds; at most ` +
          `${most} are taken`,
        "prompt",
      );
    }
    const tokens = model.tokens(wellFormed(request.prompt), {
      addSpecialTokens: request.add_special_tokens ?? true,
    });
    return context.json({
      tokens: [...tokens],
      count: tokens.length,
      max_model_len: model.info.context,
    }, 200);
  });
  app.openapi(detokenize, (context) => {
    const { model: id, tokens } = context.req.valid("json");
    const { model } = service.find(id);
    const outside = tokens.find((token) => token >= model.info.vocabulary);
    if (outside !== undefined) {
      throw badRequest(
        `tokens: id ${outside} is outside the model's vocabulary of ${model.info.vocabulary}`,
        "tokens",
      );
    }
    return context.json({ prompt: model.text(tokens) }, 200);
  });
}
