/**
 * `GET /health`, `/ready` and `/metrics`: for those who keep the server running.
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { App } from "../context.ts";
import { errorResponse } from "../schemas/common.ts";
import type { Service } from "../service.ts";

const stateSchema = z.object({
  status: z.enum(["loading", "ready", "draining", "failed"]),
}).openapi("State");

const health = createRoute({
  method: "get",
  path: "/health",
  tags: ["operation"],
  security: [],
  summary: "Whether the server lives",
  responses: {
    200: { description: "It does", content: { "application/json": { schema: stateSchema } } },
    403: errorResponse(403),
    503: {
      description: "A model answers no more, which another process alone mends",
      content: { "application/json": { schema: stateSchema } },
    },
  },
});

const ready = createRoute({
  method: "get",
  path: "/ready",
  tags: ["operation"],
  security: [],
  summary: "Whether the server takes requests",
  responses: {
    200: { description: "It does", content: { "application/json": { schema: stateSchema } } },
    403: errorResponse(403),
    503: {
      description: "Models are being loaded, one answers no more, or the server is about to stop",
      content: { "application/json": { schema: stateSchema } },
    },
  },
});

const metrics = createRoute({
  method: "get",
  path: "/metrics",
  tags: ["operation"],
  security: [],
  summary: "Metrics for Prometheus",
  responses: {
    200: {
      description: "Prometheus' text format",
      content: { "text/plain": { schema: z.string() } },
    },
    403: errorResponse(403),
  },
});

/** Adds the routes. */
export function addState(app: App, service: Service): void {
  app.openapi(
    health,
    (context) => context.json({ status: service.state }, service.hasLost ? 503 : 200),
  );
  app.openapi(ready, (context) => {
    const isReady = service.state === "ready";
    if (!isReady) context.header("Retry-After", "2");
    return context.json({ status: service.state }, isReady ? 200 : 503);
  });
  app.openapi(metrics, async (context) => {
    const text = await service.metrics.text();
    return context.text(text, 200, { "Content-Type": service.metrics.contentType });
  });
}
