import { expect, test } from "bun:test";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { ConfigError } from "../../src/errors.ts";
import { fromRoot } from "../support/paths.ts";
import { readJsonOf, thrownBy } from "./support.ts";

const config = readJsonOf(fromRoot("test/fixtures/architectures/phi"), "config.json");
const { rope_theta: _, rope_scaling: __, partial_rotary_factor: ___, ...bare } = config;
const turns = (more: object) => describeModel({ ...bare, ...more }).rotary(0)!;

test("Phi's config means the same as transformers 4 and as transformers 5 write it", () => {
  const rope_parameters = { rope_type: "default", rope_theta: 500, partial_rotary_factor: 0.25 };
  expect(turns({ rope_parameters })).toEqual(
    turns({ rope_theta: 500, partial_rotary_factor: 0.25 }),
  );
  // What stands among the parameters counts more than what stands beside them.
  expect(turns({ rope_parameters, partial_rotary_factor: 0.5 })).toEqual(
    turns({ rope_parameters }),
  );
  expect(turns({})).toEqual(turns({ rope_theta: 10_000, partial_rotary_factor: 0.5 }));
  // Phi 2 has heads of 80 elements.
  const phi2 = { hidden_size: 320, partial_rotary_factor: 0.4 };
  expect(turns(phi2).frequencies).toHaveLength(16);
});

test("a tied head of Phi keeps its bias; norms of queries and keys are refused", () => {
  const tied = describeModel({ ...config, tie_word_embeddings: true });
  expect([tied.head, tied.headBias]).toEqual(["model.embed_tokens", "lm_head"]);
  const error = thrownBy(() => describeModel({ ...config, qk_layernorm: true }));
  expect(error).toBeInstanceOf(ConfigError);
  expect(error.message).toContain("qk_layernorm is not supported");
});
