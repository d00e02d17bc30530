/**
 * A description of an API with all that the reference page shows: references, a schema that contains
 * itself, alternatives, parameters, several media types.
 * @module
 */

const error = {
  description: "What was wrong",
  content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
};

/** The description. */
export const FAKE_OPENAPI = {
  openapi: "3.1.0",
  info: {
    title: "Espalier",
    version: "0.1.0",
    description: "An API like OpenAI's, for the models that this server runs.",
  },
  tags: [
    { name: "Completions", description: "Text by a model." },
    { name: "Models", description: "What the server runs." },
  ],
  components: {
    securitySchemes: { key: { type: "http", scheme: "bearer" } },
    schemas: {
      Error: {
        type: "object",
        required: ["error"],
        properties: {
          error: {
            type: "object",
            required: ["message", "type", "param", "code"],
            properties: {
              message: { type: "string" },
              type: { type: "string" },
              param: { type: ["string", "null"] },
              code: { type: ["string", "null"] },
            },
          },
        },
      },
      ChatMessage: {
        type: "object",
        required: ["role"],
        properties: {
          role: { type: "string", enum: ["system", "user", "assistant"] },
          content: {
            anyOf: [
              { type: "string" },
              {
                type: "array",
                minItems: 1,
                items: { type: "object", properties: { type: { type: "string" } } },
              },
              { type: "null" },
            ],
            description: "What is said: text, or a list of parts of type `text`",
          },
          replies: { type: "array", items: { $ref: "#/components/schemas/ChatMessage" } },
        },
      },
      ChatRequest: {
        type: "object",
        required: ["messages"],
        properties: {
          messages: {
            type: "array",
            minItems: 1,
            maxItems: 4096,
            items: { $ref: "#/components/schemas/ChatMessage" },
          },
          temperature: {
            type: ["number", "null"],
            minimum: 0,
            maximum: 2,
            default: 1,
            description: "0 takes the likeliest token each time",
          },
          logit_bias: { type: "object", additionalProperties: { type: "number", minimum: -100 } },
          response_format: {
            oneOf: [
              { type: "object", properties: { type: { const: "text" } } },
              { type: "object", properties: { type: { const: "json_object" } } },
            ],
          },
          stream: { type: "boolean", default: false },
        },
        example: {
          model: "tiny",
          messages: [{ role: "user", content: "Say it's spring." }],
          max_tokens: 32,
        },
      },
      Completion: {
        type: "object",
        properties: { id: { type: "string" }, choices: { type: "array", items: {} } },
      },
      Model: { type: "object", properties: { id: { type: "string" } } },
    },
  },
  security: [{ key: [] }],
  paths: {
    "/v1/chat/completions": {
      post: {
        tags: ["Completions"],
        operationId: "chat",
        summary: "Answers a conversation",
        description: "As a whole, or with `stream` as server-sent events.",
        requestBody: {
          required: true,
          content: { "application/json": { schema: { $ref: "#/components/schemas/ChatRequest" } } },
        },
        responses: {
          200: {
            description: "The answer",
            content: {
              "application/json": { schema: { $ref: "#/components/schemas/Completion" } },
              "text/event-stream": { schema: { $ref: "#/components/schemas/Completion" } },
            },
          },
          400: error,
          429: error,
        },
      },
    },
    "/v1/models": {
      get: {
        tags: ["Models"],
        summary: "Lists the models",
        responses: {
          200: {
            description: "All of them",
            content: {
              "application/json": {
                schema: { type: "array", items: { $ref: "#/components/schemas/Model" } },
              },
            },
          },
        },
      },
    },
    "/v1/models/{id}": {
      get: {
        tags: ["Models"],
        summary: "Describes a model",
        parameters: [
          {
            name: "id",
            in: "path",
            required: true,
            description: "As the list has it",
            schema: { type: "string" },
          },
        ],
        responses: {
          200: {
            description: "The model",
            content: { "application/json": { schema: { $ref: "#/components/schemas/Model" } } },
          },
          404: error,
        },
      },
    },
    "/ready": {
      get: {
        summary: "Tells whether models are loaded",
        security: [],
        responses: { 200: { description: "They are" }, 503: { description: "Not yet" } },
      },
    },
  },
};
