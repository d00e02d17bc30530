/**
 * `GET /v1/models` and `/v1/models/{id}`: what goes out.
 * @module
 */
import { z } from "@hono/zod-openapi";

const bytes = z.int().min(0);

/** What a compiled model is made of. */
const cardSchema = z.object({
  parameters: z.int().describe("Weights of the linears of all blocks, zeros included"),
  sparsity: z.number().describe("Fraction of them that is 0"),
  values: z.string().describe("How values are stored: f32, f16, int8 or int4"),
  formats: z.record(z.string(), z.int()).describe("Number of linears by format"),
  blocks: z.array(z.object({ index: z.int(), sparsity: z.number(), bytes })),
  dense: z.object({ f16: bytes, int8: bytes, int4: bytes }).describe(
    "What the model's files would take with dense linears",
  ),
}).openapi("ModelCard");

/** What we tell of a model beside what OpenAI does. */
const detailsSchema = z.object({
  name: z.string(),
  engine: z.enum(["sparse", "ort"]),
  device: z.string(),
  threads: z.int(),
  context: z.int().describe("Most tokens of prompt and answer together"),
  vocabulary: z.int(),
  canChat: z.boolean().describe("Whether it has a chat template"),
  fileBytes: bytes.optional(),
  weightBytes: bytes.describe("Bytes of the weights in memory"),
  cacheBytesPerToken: z.number(),
  stateBytes: bytes.optional().describe("Bytes of what linear attention remembers of a sequence"),
  card: cardSchema.optional(),
}).openapi("ModelDetails");

/** What we tell of a model beside what OpenAI does. */
export type ModelDetails = z.output<typeof detailsSchema>;

/** A model of the server. */
export const modelSchema = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int().describe("When it was loaded, in seconds since 1970"),
  owned_by: z.string(),
  espalier: detailsSchema,
}).openapi("Model");

/** All models of the server. */
export const modelListSchema = z.object({
  object: z.literal("list"),
  data: z.array(modelSchema),
}).openapi("ModelList");
