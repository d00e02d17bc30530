/**
 * Gradients of a decoder's sections, each computed from what came into the section: between the runs
 * nothing is kept but the hidden states before each block.
 * @module
 */
import { extract } from "../../onnx/extract.ts";
import { gradientOf } from "../../onnx/gradient.ts";
import {
  type Activations,
  type BlockWeights,
  HIDDEN_IN,
  HIDDEN_OUT,
  type OtherWeights,
  type StagedModel,
} from "./staged.ts";

/** The gradient of a loss by what a section computes from. */
export interface SectionGradients {
  /** By the hidden states before the section, `[windows, length, width]`; where it was asked for. */
  readonly hidden?: Float32Array;
  /** By weights, in their shapes, summed over all tokens. */
  readonly weights: ReadonlyMap<string, Float32Array>;
}

/** Runs the sections of a model backwards. */
export class BackwardModel {
  readonly #model: StagedModel;

  /** @param model The model; its sessions are used and freed with its own. */
  constructor(model: StagedModel) {
    this.#model = model;
  }

  /**
   * The gradients of a block.
   *
   * @param index The block.
   * @param weights All its weights.
   * @param activations What came into the block.
   * @param gradient The loss's gradient by what came out of it, `[windows, length, width]`.
   * @param want `by`: names of linears' weights; `hidden`: whether what came in is asked about.
   * @throws {GraphError} When the block has an operator without a rule; see `addGradients`.
   */
  async block(
    index: number,
    weights: BlockWeights,
    activations: Activations,
    gradient: Float32Array,
    want: { readonly by: readonly string[]; readonly hidden: boolean },
  ): Promise<SectionGradients> {
    const model = this.#model;
    const block = model.blocks[index];
    const section = model.blockSection(
      block,
      `backward ${want.hidden} ${want.by.join(" ")}`,
      () => ({
        outputs: [],
        gradients: {
          of: block.hiddenOut,
          by: [...(want.hidden ? [block.hiddenIn] : []), ...want.by],
        },
      }),
    );
    const outputs = await model.runSection(
      section,
      {
        ...activations.shared,
        [HIDDEN_IN]: model.hiddenTensor(activations.batch, activations.hidden),
        [gradientOf(HIDDEN_OUT)]: model.hiddenTensor(activations.batch, gradient),
      },
      weights,
      activations.change,
    );
    const give = (name: string) => outputs[gradientOf(section.rename(name))].data as Float32Array;
    return {
      hidden: want.hidden ? give(block.hiddenIn) : undefined,
      weights: new Map(want.by.map((name) => [name, give(name)])),
    };
  }

  /**
   * The gradient by the last block's hidden states and by weights behind it, from that by what comes into
   * the output head.
   *
   * @param activations What came out of the last block.
   * @param gradient By the head's input, `[windows, length, head width]`.
   * @param by Names of the weights that are asked about.
   * @param others Weights that come from elsewhere than the model's files.
   */
  async finish(
    activations: Activations,
    gradient: Float32Array,
    by: readonly string[] = [],
    others?: OtherWeights,
  ): Promise<SectionGradients> {
    const model = this.#model;
    const { after, head, blocks } = model.sections;
    if (after.nodes.length === 0) return { hidden: gradient, weights: new Map() };
    const hidden = blocks.at(-1)!.hiddenOut;
    const section = model.once(`after backward ${by.join(" ")}`, () =>
      extract(model.graph, after, {
        outputs: [],
        gradients: { of: head.input, by: [hidden, ...by] },
      }));
    const feeds = {
      [hidden]: model.hiddenTensor(activations.batch, activations.hidden),
      [gradientOf(head.input)]: model.hiddenTensor(activations.batch, gradient),
    };
    const weights = model.readWeights(section, others);
    const outputs = await model.runSection(section, feeds, weights);
    const give = (name: string) => outputs[gradientOf(name)].data as Float32Array;
    return { hidden: give(hidden), weights: new Map(by.map((name) => [name, give(name)])) };
  }
}
