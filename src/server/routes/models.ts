/**
 * `GET /v1/models` and `/v1/models/{id}`
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { App } from "../context.ts";
import { errorResponses } from "../schemas/common.ts";
import { type ModelDetails, modelListSchema, modelSchema } from "../schemas/models.ts";
import type { Served, Service } from "../service.ts";

const list = createRoute({
  method: "get",
  path: "/v1/models",
  tags: ["models"],
  summary: "All models of the server",
  responses: {
    200: {
      description: "The models; the first is taken where a request names none",
      content: { "application/json": { schema: modelListSchema } },
    },
    ...errorResponses,
  },
});

const one = createRoute({
  method: "get",
  path: "/v1/models/{id}",
  tags: ["models"],
  summary: "One model",
  request: { params: z.object({ id: z.string() }) },
  responses: {
    200: { description: "The model", content: { "application/json": { schema: modelSchema } } },
    ...errorResponses,
  },
});

/** Adds the routes. */
export function addModels(app: App, service: Service): void {
  app.openapi(list, (context) => {
    service.assertServing();
    return context.json({ object: "list" as const, data: service.models.map(modelOf) }, 200);
  });
  app.openapi(one, (context) => {
    return context.json(modelOf(service.find(context.req.valid("param").id)), 200);
  });
}

function modelOf({ id, created, model }: Served): z.output<typeof modelSchema> {
  return { id, object: "model", created, owned_by: "espalier", espalier: detailsOf(model) };
}

function detailsOf({ info, canChat, card }: Served["model"]): ModelDetails {
  const { name, engine, device, threads, context, vocabulary, fileBytes } = info;
  return {
    name,
    engine,
    device,
    threads,
    context,
    vocabulary,
    canChat,
    ...(fileBytes === undefined ? {} : { fileBytes }),
    weightBytes: info.weightBytes,
    cacheBytesPerToken: info.cacheBytesPerToken,
    ...(info.stateBytes === undefined ? {} : { stateBytes: info.stateBytes }),
    ...(card === undefined ? {} : { card: { ...card, blocks: [...card.blocks] } }),
  };
}
